// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {AccessControlDefaultAdminRules} from
    "@openzeppelin/contracts/access/extensions/AccessControlDefaultAdminRules.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IERC20Metadata} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Metadata.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {MerkleProof} from "@openzeppelin/contracts/utils/cryptography/MerkleProof.sol";
import {Pausable} from "@openzeppelin/contracts/utils/Pausable.sol";

/// @title Where a ledger's money comes in, its checkpoints are anchored and its payouts go out
/// @notice One vault serves one ledger. Three numbers never break order, whatever anyone calls:
/// `paidTotal <= authorisedTotal <= depositedTotal`. Checkpoints form a hash chain without gaps or
/// repeats, so a checkpoint sent twice reverts instead of being anchored twice. Payouts are
/// cumulative per account, so a claim sent twice pays nothing and a missed epoch costs nothing.
/// The contract cannot be upgraded, has no loop over users and no way to take tokens out but a
/// claim.
contract SettlementVault is AccessControlDefaultAdminRules, Pausable {
    using SafeERC20 for IERC20;

    /// @notice What an epoch of the ledger comes to. Its hash is keccak256(abi.encode(checkpoint)).
    struct Checkpoint {
        uint64 epoch; // 1, 2, 3, …
        bytes32 ledgerOrigin; // hash of the ledger's genesis: the same in all checkpoints
        bytes32 ledgersRoot; // root over the roots and sizes of all shards
        bytes32 stateRoot;
        bytes32 payoutRoot; // OpenZeppelin standard tree of cumulative payouts
        uint64 payoutCount; // its leaves
        uint256 authorisedTotal; // sum of its cumulative amounts, in wei
        bytes32 totalsHash;
        bytes32 checkpointBodyHash; // hash of the ledger's own record of this checkpoint
        bytes32 prevHash; // hash of the checkpoint before, zero for the first
    }

    /// @notice May anchor checkpoints.
    bytes32 public constant PROPOSER_ROLE = keccak256("PROPOSER_ROLE");
    /// @notice May stop claims; only the admin may let them go on.
    bytes32 public constant GUARDIAN_ROLE = keccak256("GUARDIAN_ROLE");
    /// @notice The ledger counts in nano (10^-9); an amount on chain is a whole number of them.
    uint256 public constant WEI_PER_NANO = 1e9;

    IERC20 public immutable token;

    uint256 public depositedTotal;
    uint256 public authorisedTotal;
    uint256 public paidTotal;

    /// @notice The number of the last checkpoint; 0 before the first.
    uint64 public lastEpoch;
    /// @notice The payout root of the last checkpoint: the only one that claims are checked against.
    bytes32 public payoutRoot;
    /// @notice Set by the first checkpoint, for ever.
    bytes32 public ledgerOrigin;
    /// @notice Hash of the checkpoint of an epoch; zero if there is none.
    mapping(uint64 epoch => bytes32) public checkpointHash;
    /// @notice What an account has been paid in all.
    mapping(bytes32 account => uint256) public claimed;

    event Deposited(
        bytes32 indexed account, address indexed from, uint256 amount, uint256 depositedTotal
    );
    event CheckpointProposed(
        uint64 indexed epoch, bytes32 indexed checkpointHash, Checkpoint checkpoint
    );
    event Claimed(
        bytes32 indexed account, address indexed payee, uint256 amount, uint256 cumulative
    );

    error WrongDecimals(uint8 decimals);
    error ZeroAccount();
    error ZeroAmount();
    error NotWholeNano(uint256 amount);
    error EpochAlreadyProposed(uint64 epoch, bytes32 checkpointHash);
    error EpochOutOfOrder(uint64 expected, uint64 given);
    error WrongPreviousHash(bytes32 expected, bytes32 given);
    error WrongLedgerOrigin(bytes32 expected, bytes32 given);
    error AuthorisedFell(uint256 before, uint256 given);
    error AuthorisedOverDeposited(uint256 authorised, uint256 deposited);
    error InvalidProof();
    error NothingToClaim();
    error PaidOverAuthorised(uint256 paid, uint256 authorised);

    constructor(
        IERC20Metadata token_,
        address admin,
        uint48 adminDelay,
        address proposer,
        address guardian
    ) AccessControlDefaultAdminRules(adminDelay, admin) {
        uint8 decimals = token_.decimals();
        if (decimals != 18) revert WrongDecimals(decimals);
        token = token_;
        _grantRole(PROPOSER_ROLE, proposer);
        _grantRole(GUARDIAN_ROLE, guardian);
    }

    /// @notice Pull `amount` tokens of the caller into the vault for a ledger account.
    /// @param account the account's id in the ledger
    /// @param amount in wei, a whole number of nanos
    function deposit(bytes32 account, uint256 amount) external {
        if (account == bytes32(0)) revert ZeroAccount();
        if (amount == 0) revert ZeroAmount();
        if (amount % WEI_PER_NANO != 0) revert NotWholeNano(amount);
        uint256 total = depositedTotal + amount;
        depositedTotal = total;
        emit Deposited(account, msg.sender, amount, total);
        token.safeTransferFrom(msg.sender, address(this), amount);
    }

    /// @notice Anchor the checkpoint of the next epoch; its payout root replaces the one before.
    function propose(Checkpoint calldata checkpoint) external onlyRole(PROPOSER_ROLE) {
        uint64 last = lastEpoch;
        bytes32 lastHash = checkpointHash[last];
        if (checkpoint.epoch != 0 && checkpoint.epoch <= last) {
            revert EpochAlreadyProposed(checkpoint.epoch, checkpointHash[checkpoint.epoch]);
        }
        if (checkpoint.epoch != last + 1) revert EpochOutOfOrder(last + 1, checkpoint.epoch);
        if (checkpoint.prevHash != lastHash) {
            revert WrongPreviousHash(lastHash, checkpoint.prevHash);
        }
        if (last == 0) {
            ledgerOrigin = checkpoint.ledgerOrigin;
        } else if (checkpoint.ledgerOrigin != ledgerOrigin) {
            revert WrongLedgerOrigin(ledgerOrigin, checkpoint.ledgerOrigin);
        }
        uint256 authorised = checkpoint.authorisedTotal;
        if (authorised % WEI_PER_NANO != 0) revert NotWholeNano(authorised);
        if (authorised < authorisedTotal) revert AuthorisedFell(authorisedTotal, authorised);
        if (authorised > depositedTotal) {
            revert AuthorisedOverDeposited(authorised, depositedTotal);
        }
        bytes32 hash = keccak256(abi.encode(checkpoint));
        lastEpoch = checkpoint.epoch;
        checkpointHash[checkpoint.epoch] = hash;
        payoutRoot = checkpoint.payoutRoot;
        authorisedTotal = authorised;
        emit CheckpointProposed(checkpoint.epoch, hash, checkpoint);
    }

    /// @notice Pay an account what it has earned and not been paid. Anyone may call; the money goes
    /// to the payee that the ledger put in the leaf.
    /// @param cumulative all that the account has ever earned for payout, in wei
    function claim(bytes32 account, address payee, uint256 cumulative, bytes32[] calldata proof)
        external
        whenNotPaused
    {
        if (!MerkleProof.verifyCalldata(proof, payoutRoot, leafOf(account, payee, cumulative))) {
            revert InvalidProof();
        }
        uint256 before = claimed[account];
        if (cumulative <= before) revert NothingToClaim();
        uint256 amount = cumulative - before;
        uint256 paid = paidTotal + amount;
        if (paid > authorisedTotal) revert PaidOverAuthorised(paid, authorisedTotal);
        claimed[account] = cumulative;
        paidTotal = paid;
        emit Claimed(account, payee, amount, cumulative);
        token.safeTransfer(payee, amount);
    }

    /// @notice The leaf of an account in the payout tree. Chain and vault are inside it, since a
    /// tree of one leaf is its own root and must not be of use elsewhere.
    function leafOf(bytes32 account, address payee, uint256 cumulative)
        public
        view
        returns (bytes32)
    {
        return keccak256(
            bytes.concat(
                keccak256(abi.encode(block.chainid, address(this), account, payee, cumulative))
            )
        );
    }

    /// @notice Stop claims. Deposits and checkpoints go on.
    function pause() external onlyRole(GUARDIAN_ROLE) {
        _pause();
    }

    /// @notice Let claims go on.
    function unpause() external onlyRole(DEFAULT_ADMIN_ROLE) {
        _unpause();
    }
}
