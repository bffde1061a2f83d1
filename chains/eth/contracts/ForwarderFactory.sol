// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {ForwarderLogic} from "./ForwarderLogic.sol";

/// @title Makes deposit addresses that pay one treasury, and empties them.
/// @notice Forwarders are made by CREATE2, so their addresses are known, and can be paid, before they exist. Anyone may
/// flush: money can go to the treasury only, and to rescue deposits no key of ours must be alive. The treasury and the
/// admin change in two steps, 48 hours apart. The factory holds no money and cannot be upgraded.
contract ForwarderFactory {
    /// @notice Time between the proposal of a new treasury or admin and the first moment it can take effect.
    uint256 public constant DELAY = 48 hours;
    /// @notice Time after that in which it must be accepted: an old proposal is not a standing permission.
    uint256 public constant WINDOW = 14 days;

    struct Proposal {
        address candidate;
        uint64 notBefore;
    }

    /// @notice The code that forwarders delegate to, for ever.
    address public immutable logic;
    /// @notice keccak256 of the forwarders' init code; with this address and a salt it gives a forwarder's address.
    bytes32 public immutable initcodeHash;

    /// @notice Where everything goes.
    address public treasury;
    /// @notice Who may change that, and nothing else.
    address public admin;
    /// @notice The treasury that may come, if any.
    Proposal public proposedTreasury;
    /// @notice The admin that may come, if any.
    Proposal public proposedAdmin;

    event TreasuryProposed(address indexed treasury, uint256 notBefore);
    event TreasuryCancelled(address indexed treasury);
    event TreasuryChanged(address indexed from, address indexed to);
    event AdminProposed(address indexed admin, uint256 notBefore);
    event AdminCancelled(address indexed admin);
    event AdminChanged(address indexed from, address indexed to);

    error NotAdmin();
    error NotProposedAdmin();
    error NothingProposed();
    error TooEarly(uint256 notBefore);
    error TooLate(uint256 notAfter);
    error Unusable(address candidate);
    error ForwarderFailed(address forwarder);

    constructor(address treasury_, address admin_) {
        logic = address(new ForwarderLogic());
        initcodeHash = keccak256(_initcode());
        _checkUsable(treasury_);
        _checkUsable(admin_);
        treasury = treasury_;
        admin = admin_;
        emit TreasuryChanged(address(0), treasury_);
        emit AdminChanged(address(0), admin_);
    }

    modifier onlyAdmin() {
        if (msg.sender != admin) revert NotAdmin();
        _;
    }

    /// @notice The address of a forwarder, whether it exists or not.
    function forwarderOf(bytes32 salt) external view returns (address) {
        return address(uint160(uint256(keccak256(abi.encodePacked(hex"ff", address(this), salt, initcodeHash)))));
    }

    /// @notice Makes the forwarders that do not exist yet, and sends all that they hold, of these tokens and of native
    /// money, to the treasury. What a token refuses stays where it is; see the event NotFlushed of the forwarder.
    function flush(bytes32[] calldata salts, address[] calldata tokens) external {
        bytes memory order = abi.encodeCall(ForwarderLogic.flush, (treasury, tokens));
        bytes memory initcode = _initcode();
        bytes32 codeHash = initcodeHash;
        address forwarder;
        bool done = true;
        assembly ("memory-safe") {
            // 0xff, this address, salt, hash of the init code: 85 bytes (EIP-1014). Only the salt changes.
            let preimage := mload(0x40)
            mstore(preimage, or(shl(248, 0xff), shl(88, address())))
            mstore(add(preimage, 53), codeHash)
            let end := add(salts.offset, shl(5, salts.length))
            for { let at := salts.offset } lt(at, end) { at := add(at, 32) } {
                mstore(add(preimage, 21), calldataload(at))
                forwarder := and(keccak256(preimage, 85), 0xffffffffffffffffffffffffffffffffffffffff)
                if iszero(extcodesize(forwarder)) {
                    done := eq(create2(0, add(initcode, 32), mload(initcode), calldataload(at)), forwarder)
                    if iszero(done) { break }
                }
                done := call(gas(), forwarder, 0, add(order, 32), mload(order), 0, 0)
                if iszero(done) { break }
            }
        }
        // Only for want of gas: the forwarder itself never refuses. Half a batch would be paid for, and not seen.
        if (!done) revert ForwarderFailed(forwarder);
    }

    /// @notice Announces another treasury. It replaces an earlier proposal, and the time runs anew.
    function proposeTreasury(address candidate) external onlyAdmin {
        _checkUsable(candidate);
        proposedTreasury = Proposal(candidate, uint64(block.timestamp + DELAY));
        emit TreasuryProposed(candidate, block.timestamp + DELAY);
    }

    /// @notice Takes the announced treasury, from 48 hours after its proposal until 14 days later.
    function acceptTreasury() external onlyAdmin {
        Proposal memory proposal = proposedTreasury;
        _checkRipe(proposal);
        delete proposedTreasury;
        emit TreasuryChanged(treasury, proposal.candidate);
        treasury = proposal.candidate;
    }

    /// @notice Takes back the proposal of a treasury.
    function cancelTreasury() external onlyAdmin {
        address candidate = proposedTreasury.candidate;
        if (candidate == address(0)) revert NothingProposed();
        delete proposedTreasury;
        emit TreasuryCancelled(candidate);
    }

    /// @notice Announces another admin. It replaces an earlier proposal, and the time runs anew.
    function proposeAdmin(address candidate) external onlyAdmin {
        _checkUsable(candidate);
        proposedAdmin = Proposal(candidate, uint64(block.timestamp + DELAY));
        emit AdminProposed(candidate, block.timestamp + DELAY);
    }

    /// @notice Takes over as admin, in the same time as above. The new admin calls, which shows that its key works.
    function acceptAdmin() external {
        Proposal memory proposal = proposedAdmin;
        if (msg.sender != proposal.candidate) revert NotProposedAdmin();
        _checkRipe(proposal);
        delete proposedAdmin;
        emit AdminChanged(admin, proposal.candidate);
        admin = proposal.candidate;
    }

    /// @notice Takes back the proposal of an admin.
    function cancelAdmin() external onlyAdmin {
        address candidate = proposedAdmin.candidate;
        if (candidate == address(0)) revert NothingProposed();
        delete proposedAdmin;
        emit AdminCancelled(candidate);
    }

    /// @dev 9 bytes that return the 44 after them: empty calldata ends at once, any other is delegated to `logic`.
    /// README.md has it instruction by instruction.
    function _initcode() private view returns (bytes memory) {
        return abi.encodePacked(
            hex"602c8060093d393df3", hex"3615602b57363d3d373d3d363d73", logic, hex"5af4602b57600080fd5b"
        );
    }

    /// @dev Tokens sent to these would be lost: nothing ever moves them on.
    function _checkUsable(address candidate) private view {
        if (candidate == address(0) || candidate == address(this) || candidate == logic) revert Unusable(candidate);
    }

    function _checkRipe(Proposal memory proposal) private view {
        if (proposal.candidate == address(0)) revert NothingProposed();
        if (block.timestamp < proposal.notBefore) revert TooEarly(proposal.notBefore);
        if (block.timestamp > proposal.notBefore + WINDOW) revert TooLate(proposal.notBefore + WINDOW);
    }
}
