// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";

/// @title SYNOR, the token of demos and tests
/// @notice A plain ERC-20 of 18 decimals whose whole supply is made once. A real market pins the
/// token it is given; nothing in the vault depends on this contract but `decimals() == 18`.
contract SynorToken is ERC20 {
    /// @param holder who holds the whole supply at first (the faucet of a development chain)
    /// @param supply in wei of the token (10^-18)
    constructor(address holder, uint256 supply) ERC20("Synor", "SYNOR") {
        _mint(holder, supply);
    }
}
