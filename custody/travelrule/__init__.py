"""The travel rule (FATF recommendation 16): who pays whom, attached to withdrawals, sealed, told to the other side."""
