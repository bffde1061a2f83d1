// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// @notice A wallet of somebody outside that is a contract: it pays from inside a transaction.
contract ContractWallet {
    error Failed(bytes reason);

    receive() external payable {}

    /// @notice Pays with the 2,300 gas of Solidity's `transfer`.
    function payByTransfer(address payable to, uint256 amount) external {
        to.transfer(amount);
    }

    /// @notice Pays by a call with all gas.
    function payByCall(address to, uint256 amount, bytes calldata data) external {
        _call(to, amount, data);
    }

    /// @notice Pays many in one transaction.
    function payMany(address[] calldata to, uint256[] calldata amounts) external {
        for (uint256 i = 0; i < to.length; ++i) {
            _call(to[i], amounts[i], "");
        }
    }

    /// @notice Pays in a call that is undone, and goes on: money that seems to move and does not.
    function payInVain(address to, uint256 amount) external {
        try this.payAndRevert(to, amount) {} catch {}
    }

    function payAndRevert(address to, uint256 amount) external {
        _call(to, amount, "");
        revert("in vain");
    }

    /// @notice Leaves everything to somebody without calling it.
    function destroy(address payable heir) external {
        selfdestruct(heir);
    }

    function _call(address to, uint256 amount, bytes memory data) private {
        (bool done, bytes memory reason) = to.call{value: amount}(data);
        if (!done) revert Failed(reason);
    }
}

/// @notice Leaves its money to somebody while it is being made: no call, no code afterwards.
contract Bequest {
    constructor(address payable heir) payable {
        selfdestruct(heir);
    }
}

/// @notice Takes no money as long as it is told to.
contract RevertingReceiver {
    bool public refuses = true;

    function setRefuses(bool refuses_) external {
        refuses = refuses_;
    }

    receive() external payable {
        require(!refuses, "no, thank you");
    }
}

/// @notice Eats all the gas it is given when it is paid.
contract GasBurner {
    uint256 private sink;

    receive() external payable {
        while (true) {
            unchecked {
                sink += 1;
            }
        }
    }
}

/// @notice Calls somebody back when it is paid, and says whether that succeeded.
contract ReentrantReceiver {
    address public target;
    bytes public data;
    uint256 public value;

    event Entered(bool succeeded);

    function setCallback(address target_, bytes calldata data_, uint256 value_) external {
        target = target_;
        data = data_;
        value = value_;
    }

    receive() external payable {
        if (target != address(0)) {
            (bool called,) = target.call{value: value}(data);
            emit Entered(called);
        }
    }
}

/// @notice Makes the traces of its block long: they repeat what each call was given, which costs next to nothing.
contract TraceBomb {
    function explode(uint256 calls, uint256 size) external {
        assembly {
            for { let i := 0 } lt(i, calls) { i := add(i, 1) } {
                pop(call(gas(), 0xdead, 0, 0, size, 0, 0))
            }
        }
    }
}
