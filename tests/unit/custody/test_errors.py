"""The error tree: what its docstring draws is what there is, and each says whether a retry can help."""

from __future__ import annotations

import inspect
import re

from chains.errors import PermanentError, StrongroomError, TransientError
from custody import errors

CLASSES = {
    name: member
    for name, member in vars(errors).items()
    if inspect.isclass(member)
    and issubclass(member, StrongroomError)
    and member.__module__ == errors.__name__
}


def test_every_error_is_either_transient_or_permanent() -> None:
    for error in CLASSES.values():
        assert issubclass(error, TransientError) != issubclass(error, PermanentError)
        assert error.transient == issubclass(error, TransientError)


def test_the_tree_in_the_docstring_names_every_error_and_no_other() -> None:
    drawn = set(re.findall(r"[├└]── (\w+)", errors.__doc__ or "")) - {"TransientError", "PermanentError"}
    assert drawn == set(CLASSES)


def test_errors_carry_their_numbers() -> None:
    error = errors.InsufficientFunds("BTC", available=4, needed=9)
    assert (error.asset, error.available, error.needed) == ("BTC", 4, 9)
    assert "9 base units of BTC are needed, 4 are available" in str(error)
    expired = errors.ExpiredOrder(expires_at=10, now=11)
    assert (expired.expires_at, expired.now) == (10, 11)
    assert errors.UnknownCustomer("zoe").what == "customer"
