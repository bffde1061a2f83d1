// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// @title Pays native money to many in one transaction: all of them, or nobody.
/// @notice No storage, no owner, no tokens, no allowances. It spends exactly what comes with the call, so nobody who
/// is called by it can reach the money of the others, and nothing is left in it.
contract BatchPayout {
    /// @notice Most gas that a payee gets (and 2,300 more, the stipend of each payment): enough for a contract wallet,
    /// too little to make a batch expensive.
    uint256 public constant GAS_PER_PAYEE = 50_000;

    error LengthsDiffer(uint256 payees, uint256 amounts);
    error SumDiffers(uint256 sum, uint256 value);
    error PaymentFailed(uint256 index, address payee);

    /// @notice Pays `amounts[i]` to `to[i]`. Reverts unless the amounts are exactly what comes along and all succeed.
    function pay(address[] calldata to, uint256[] calldata amounts) external payable {
        if (to.length != amounts.length) revert LengthsDiffer(to.length, amounts.length);
        uint256 sum = 0;
        for (uint256 i = 0; i < amounts.length; ++i) {
            sum += amounts[i];
        }
        if (sum != msg.value) revert SumDiffers(sum, msg.value);
        for (uint256 i = 0; i < to.length; ++i) {
            address payee = to[i];
            uint256 amount = amounts[i];
            bool paid;
            // In assembly, for Solidity's own call copies whatever the payee returns, at our cost.
            assembly ("memory-safe") {
                paid := call(GAS_PER_PAYEE, payee, amount, 0, 0, 0, 0)
            }
            if (!paid) revert PaymentFailed(i, payee);
        }
    }
}
