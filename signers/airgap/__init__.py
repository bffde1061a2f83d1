"""The offline signer of one key holder: files in, files out, nothing online. Installable alone (see README.md)."""
