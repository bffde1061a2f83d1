"""A PKCS#11 library that tokens share: sessions that are repaired, and what keys do there."""
