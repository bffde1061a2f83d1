// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// @title What every forwarder runs: it empties the forwarder into the treasury, and can do nothing else.
/// @notice Forwarders delegate to this one contract, whose address is part of their code. It has no storage, no
/// owner, no delegatecall and no selfdestruct, and only the factory that made it can use it. Called directly it acts
/// for itself, and it owns nothing.
contract ForwarderLogic {
    /// @notice The only caller. Part of this contract's code, so that it is the same in every forwarder.
    address public immutable factory;

    /// @notice Native money left this forwarder for the treasury. Tokens say so by their own Transfer events.
    event EtherFlushed(uint256 amount);
    /// @notice A balance stayed here: the token (zero: native money) refused to move it. `balance` is zero where the
    /// token would not even tell it.
    event NotFlushed(address indexed token, uint256 balance);

    error NotFactory();

    constructor() {
        factory = msg.sender;
    }

    /// @notice Sends the whole balance of each token, then all native money, to the treasury.
    /// @dev What refuses is left with an event, so that one paused or blacklisting token never holds up the rest.
    /// Re-entry gains nothing: whoever enters again through the factory sends to the same treasury.
    function flush(address treasury, address[] calldata tokens) external {
        if (msg.sender != factory) revert NotFactory();
        for (uint256 i = 0; i < tokens.length; ++i) {
            address token = tokens[i];
            (bool known, uint256 held) = _balanceOf(token);
            if (!known || (held != 0 && !_transfer(token, treasury, held))) {
                emit NotFlushed(token, held);
            }
        }
        uint256 amount = address(this).balance;
        if (amount != 0) {
            bool paid;
            // All gas, for a treasury may be a Safe. No returned data is copied, however long it is.
            assembly ("memory-safe") {
                paid := call(gas(), treasury, amount, 0, 0, 0, 0)
            }
            if (paid) emit EtherFlushed(amount);
            else emit NotFlushed(address(0), amount);
        }
    }

    /// @dev balanceOf(this); unknown where the call fails or returns less than a word, as where there is no code.
    function _balanceOf(address token) private view returns (bool known, uint256 held) {
        assembly ("memory-safe") {
            mstore(0x00, shl(224, 0x70a08231))
            mstore(0x04, address())
            let called := staticcall(gas(), token, 0x00, 0x24, 0x00, 0x20)
            known := and(called, gt(returndatasize(), 0x1f))
            if known { held := mload(0x00) }
        }
    }

    /// @dev transfer(to, amount). Done is: no failure, and nothing returned (as USDT does) or true.
    function _transfer(address token, address to, uint256 amount) private returns (bool done) {
        assembly ("memory-safe") {
            let data := mload(0x40)
            mstore(data, shl(224, 0xa9059cbb))
            mstore(add(data, 0x04), to)
            mstore(add(data, 0x24), amount)
            let called := call(gas(), token, 0, data, 0x44, 0x00, 0x20)
            let accepted := or(iszero(returndatasize()), and(gt(returndatasize(), 0x1f), eq(mload(0x00), 1)))
            done := and(called, accepted)
        }
    }
}
