"""What officers have signed, as the online side goes by it: bundles that wait, vetoes, freezes, lower numbers.

Signers are told by the officers themselves. Here it is kept in tables that anybody who takes a role could write into,
so every signature is checked again whenever something is read, and nothing else is believed.
"""
