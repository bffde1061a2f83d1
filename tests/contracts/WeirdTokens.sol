// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Token} from "./Token.sol";

/// @notice Like USDT: `transfer` returns nothing. No ERC-20 by the letter, and the most used of all.
contract NoReturnToken {
    string public constant name = "No Return";
    string public constant symbol = "NORET";
    uint8 public constant decimals = 6;
    uint256 public totalSupply;
    mapping(address => uint256) public balanceOf;

    event Transfer(address indexed from, address indexed to, uint256 value);

    function mint(address to, uint256 value) external {
        totalSupply += value;
        balanceOf[to] += value;
        emit Transfer(address(0), to, value);
    }

    function transfer(address to, uint256 value) external {
        balanceOf[msg.sender] -= value;
        balanceOf[to] += value;
        emit Transfer(msg.sender, to, value);
    }
}

/// @notice Returns false and moves nothing, instead of reverting, as long as it is told to.
contract FalseToken is Token {
    bool public refuses = true;

    constructor() Token("False", "FALSE", 18) {}

    function setRefuses(bool refuses_) external {
        refuses = refuses_;
    }

    function transfer(address to, uint256 value) external override returns (bool) {
        if (refuses) return false;
        _move(msg.sender, to, value);
        return true;
    }
}

/// @notice Burns a part of each transfer; its event names what was sent, not what arrived.
contract FeeToken is Token {
    uint256 public feeBps;

    constructor(uint256 feeBps_) Token("Fee", "FEE", 18) {
        feeBps = feeBps_;
    }

    function setFee(uint256 feeBps_) external {
        feeBps = feeBps_;
    }

    function _move(address from, address to, uint256 value) internal override {
        uint256 fee = value * feeBps / 10_000;
        balanceOf[from] -= value;
        balanceOf[to] += value - fee;
        totalSupply -= fee;
        emit Transfer(from, to, value);
    }
}

/// @notice Reverts every transfer while it is paused.
contract PausableToken is Token {
    bool public paused;

    error Paused();

    constructor() Token("Pausable", "PAUSE", 6) {}

    function setPaused(bool paused_) external {
        paused = paused_;
    }

    function _move(address from, address to, uint256 value) internal override {
        if (paused) revert Paused();
        super._move(from, to, value);
    }
}

/// @notice Reverts every transfer from or to those on its list.
contract BlacklistToken is Token {
    mapping(address => bool) public blacklisted;

    error Blacklisted();

    constructor() Token("Blacklist", "BLACK", 6) {}

    function setBlacklisted(address who, bool listed) external {
        blacklisted[who] = listed;
    }

    function _move(address from, address to, uint256 value) internal override {
        if (blacklisted[from] || blacklisted[to]) revert Blacklisted();
        super._move(from, to, value);
    }
}

/// @notice Balances are shares of a pool and change without any transfer or event.
contract RebasingToken {
    string public constant name = "Rebasing";
    string public constant symbol = "REBASE";
    uint8 public constant decimals = 18;
    uint256 public unitsPerShare = 1e18;
    uint256 public totalShares;
    mapping(address => uint256) public sharesOf;

    event Transfer(address indexed from, address indexed to, uint256 value);

    function rebase(uint256 unitsPerShare_) external {
        unitsPerShare = unitsPerShare_;
    }

    function balanceOf(address who) public view returns (uint256) {
        return sharesOf[who] * unitsPerShare / 1e18;
    }

    function totalSupply() external view returns (uint256) {
        return totalShares * unitsPerShare / 1e18;
    }

    function mint(address to, uint256 value) external {
        uint256 shares = value * 1e18 / unitsPerShare;
        totalShares += shares;
        sharesOf[to] += shares;
        emit Transfer(address(0), to, value);
    }

    function transfer(address to, uint256 value) external returns (bool) {
        uint256 shares = value * 1e18 / unitsPerShare;
        sharesOf[msg.sender] -= shares;
        sharesOf[to] += shares;
        emit Transfer(msg.sender, to, value);
        return true;
    }
}

/// @notice Calls somebody back in the middle of each transfer, and goes on whether that succeeds or not.
contract ReentrantToken is Token {
    address public target;
    bytes public data;
    uint256 public entered;
    bool private inside;

    constructor() Token("Reentrant", "REENT", 18) {}

    function setCallback(address target_, bytes calldata data_) external {
        target = target_;
        data = data_;
    }

    function _move(address from, address to, uint256 value) internal override {
        if (target != address(0) && !inside) {
            inside = true;
            (bool called,) = target.call(data);
            if (called) entered += 1;
            inside = false;
        }
        // What the callback has moved already is not there any more: move what is left, and never fail.
        super._move(from, to, value < balanceOf[from] ? value : balanceOf[from]);
    }
}

/// @notice Says in its logs whatever it is told to, and moves nothing.
contract RogueLogs {
    string public constant name = "Rogue";
    string public constant symbol = "ROGUE";
    uint8 public constant decimals = 18;

    event Transfer(address indexed from, address indexed to, uint256 value);

    function pretend(address from, address to, uint256 value) external {
        emit Transfer(from, to, value);
    }

    function balanceOf(address) external pure returns (uint256) {
        return 0;
    }

    /// @notice The event of an ERC-721: the same first topic, four topics and no data.
    function pretendCollectible(address from, address to, uint256 id) external {
        bytes32 topic = keccak256("Transfer(address,address,uint256)");
        assembly ("memory-safe") {
            log4(0, 0, topic, from, to, id)
        }
    }

    /// @notice The right topics with data of another length.
    function pretendBriefly(address from, address to) external {
        bytes32 topic = keccak256("Transfer(address,address,uint256)");
        assembly ("memory-safe") {
            log3(0, 5, topic, from, to)
        }
    }
}

/// @notice A token that tells a balance, and eats all gas when somebody moves it.
contract GasEatingToken {
    mapping(address => uint256) public balanceOf;

    function mint(address to, uint256 value) external {
        balanceOf[to] += value;
    }

    function transfer(address, uint256) external pure returns (bool) {
        while (true) {}
        return true;
    }
}

/// @notice A token that returns a megabyte where a word belongs, with its first word true.
contract VerboseToken is Token {
    constructor() Token("Verbose", "LONG", 18) {}

    function transfer(address to, uint256 value) external override returns (bool) {
        _move(msg.sender, to, value);
        assembly {
            mstore(0, 1)
            return(0, 100000)
        }
    }
}
