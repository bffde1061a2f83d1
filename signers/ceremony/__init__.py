"""Keys' life offline: made by two operators, handed to recovery holders, proven by a restore, and restored.

`plan` what is to be made and by whom; `entropy` from host, token and dice; `hsm` what the token does; `shares`
SLIP-39; `making`, `proving`, `restoring` the work; `record` and `proven` what it leaves; `entries` what the bundle
says of it. Nothing here needs the online service or a network.
"""
