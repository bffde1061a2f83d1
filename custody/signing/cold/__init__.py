"""Signing by people offline: requests leave as files, holders bring signatures back in any order, by any program."""
