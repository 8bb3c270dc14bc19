"""Who may do what on the brokers: a table of roles, granted and checked.

The signatures and the reader rule already keep a ledger from being forged: a record that another
writes is noise. But noise costs space and time, and a reader of raw telemetry is one too many. So
each role gets the least that it needs, and what the brokers grant beyond it is named.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import kafka.errors as errors
from kafka import KafkaAdminClient
from kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ConfigResource,
    ConfigResourceType,
    ResourcePattern,
    ResourcePatternFilter,
    ResourceType,
    UserScramCredentialUpsertion,
)

from adapters.kafka_tls import failed
from domain.commit import COMMANDS_TOPIC, EVENTS_TOPIC, LEDGER_TOPICS, TELEMETRY_TOPIC, Ledger
from domain.ports import LogError, SettingsRefused

_MARKET: Final = LEDGER_TOPICS[Ledger.MARKET]
_METERING: Final = LEDGER_TOPICS[Ledger.METERING]
_SETTLEMENT: Final = LEDGER_TOPICS[Ledger.SETTLEMENT]
_LEDGERS: Final = (_MARKET, _METERING, _SETTLEMENT)
#: Every topic of a network, what is derived included.
TOPICS: Final = (COMMANDS_TOPIC, TELEMETRY_TOPIC, *_LEDGERS, EVENTS_TOPIC)
_NAMED_BY_LEDGERS: Final = TOPICS[:-1]

_CLUSTER: Final = "kafka-cluster"
_ANYBODY: Final = ("User:*", "User:ANONYMOUS")
_OPEN_DOOR: Final = "allow.everyone.if.no.acl.found"
_SCRAM_ITERATIONS: Final = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """What one role may do; a name that ends in * stands for a prefix of consumer groups.

    To read or to write a topic includes to describe it, which is how a client learns where it is.
    """

    why: str
    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    describe: tuple[str, ...] = ()
    configs: tuple[str, ...] = ()
    group: str = ""
    cluster: bool = False


#: The table. Nobody reads an input but its processor and auditors; each ledger has one writer.
ROLES: Final[Mapping[str, Role]] = {
    "fleet": Role(why="nodes, gateways, buyers", write=(TELEMETRY_TOPIC, COMMANDS_TOPIC)),
    "clock": Role(why="ticks", write=(TELEMETRY_TOPIC, COMMANDS_TOPIC)),
    "watcher": Role(why="facts of the L1", write=(COMMANDS_TOPIC,)),
    "market": Role(
        why="the processor of all money",
        read=(COMMANDS_TOPIC, *_LEDGERS),
        write=(_MARKET,),
        describe=_NAMED_BY_LEDGERS,
    ),
    "metering": Role(
        why="the shards",
        read=(TELEMETRY_TOPIC, _MARKET, _METERING),
        write=(_METERING,),
        describe=_NAMED_BY_LEDGERS,
        group="synor-metering*",
    ),
    "settlement": Role(
        why="epochs and checkpoints",
        read=_LEDGERS,
        write=(_SETTLEMENT,),
        describe=_NAMED_BY_LEDGERS,
    ),
    "api": Role(
        why="read models; passes signed inputs on",
        read=_LEDGERS,
        write=(TELEMETRY_TOPIC, COMMANDS_TOPIC),
    ),
    "sender": Role(why="takes checkpoints to the L1", read=(_SETTLEMENT,)),
    "events": Role(
        why="publishes CloudEvents", read=(*_LEDGERS, EVENTS_TOPIC), write=(EVENTS_TOPIC,)
    ),
    "reader": Role(why="auditors; consumers of events", read=TOPICS, group="synor-reader*"),
    "operator": Role(why="synor topics check", describe=TOPICS, configs=TOPICS, cluster=True),
}


def _group(role: Role) -> ResourcePattern:
    """The groups that a role's workers may join: a prefix."""
    return ResourcePattern(
        ResourceType.GROUP, role.group.removesuffix("*"), ACLResourcePatternType.PREFIXED
    )


_GROUPS: Final = tuple(_group(role) for role in ROLES.values() if role.group)


def named(user: str) -> str:
    """A user as Kafka names it in an ACL."""
    return user if user.startswith("User:") else f"User:{user}"


def granted(principals: Mapping[str, Sequence[str]]) -> list[ACL]:
    """The ACLs of a table role → users. Raises ``SettingsRefused`` for a role that there is not."""
    found: list[ACL] = []
    for name, users in principals.items():
        if name not in ROLES:
            raise SettingsRefused(f"There is no role {name}; known are {', '.join(ROLES)}.")
        for user in map(named, users):
            if user in _ANYBODY:
                raise SettingsRefused(f"The role {name} cannot be given to {user}: name users.")
            found += _of(ROLES[name], user)
    return list(dict.fromkeys(found))


def _of(role: Role, user: str) -> Iterable[ACL]:
    for topics, operation in (
        (role.read, ACLOperation.READ),
        (role.write, ACLOperation.WRITE),
        (role.describe, ACLOperation.DESCRIBE),
        (role.configs, ACLOperation.DESCRIBE_CONFIGS),
    ):
        for topic in topics:
            yield _allow(user, operation, ResourcePattern(ResourceType.TOPIC, topic))
    if role.group:
        yield _allow(user, ACLOperation.READ, _group(role))
    if role.cluster:
        for operation in (ACLOperation.DESCRIBE, ACLOperation.DESCRIBE_CONFIGS):
            yield _allow(user, operation, ResourcePattern(ResourceType.CLUSTER, _CLUSTER))


def _allow(user: str, operation: ACLOperation, pattern: ResourcePattern) -> ACL:
    return ACL(user, "*", operation, ACLPermissionType.ALLOW, pattern)


class KafkaAcls:
    """Grants and checks the table on brokers; needs Alter on the cluster, or Describe to check."""

    def __init__(
        self, bootstrap: str, *, security: Mapping[str, object], timeout_s: float = 30.0
    ) -> None:
        """Connect. Raises ``LogError`` if no broker lets us in within ``timeout_s``."""
        timeout_ms = int(timeout_s * 1000)
        try:
            self._admin = KafkaAdminClient(
                **security,
                bootstrap_servers=bootstrap,
                client_id="synor-acls",
                bootstrap_timeout_ms=timeout_ms,
                request_timeout_ms=timeout_ms,
            )
        except errors.KafkaError as error:
            why = failed(error, bootstrap, security)
            raise LogError(f"No broker at {bootstrap}: {why}") from error

    def enrol(self, passwords: Mapping[str, str], mechanism: str) -> None:
        """Set the SCRAM password of each user; an earlier one stops to work for new connections."""
        try:
            answers = self._admin.alter_user_scram_credentials(
                [
                    UserScramCredentialUpsertion(user, mechanism, password, _SCRAM_ITERATIONS)
                    for user, password in passwords.items()
                ]
            )
        except errors.KafkaError as error:
            raise LogError(f"Passwords: {type(error).__name__} {error}") from error
        failed = {user: why for user, why in answers.items() if why is not None}
        if failed:
            raise LogError(f"The brokers set no password for {failed}.")

    def grant(self, principals: Mapping[str, Sequence[str]]) -> None:
        """Create what is missing of the table; nothing is taken away from anybody."""
        wanted = granted(principals)
        try:
            answers = self._admin.create_acls(wanted)
        except errors.KafkaError as error:
            raise LogError(f"ACLs: {type(error).__name__} {error}") from error
        if answers["failed"]:
            why = sorted({error.__name__ for error in answers["failed"]})
            raise LogError(
                f"The brokers refused {len(answers['failed'])} of {len(wanted)} ACLs: "
                f"{', '.join(why)}."
            )

    def check(self, principals: Mapping[str, Sequence[str]]) -> Sequence[str]:
        """What is missing of the table, and what is granted beyond it, each as a sentence."""
        wanted = set(granted(principals))
        try:
            found = set(self._found())
            open_door = self._open_door()
        except errors.SecurityDisabledError:
            return ["The brokers have no authorizer: anybody may write every ledger."]
        except errors.KafkaError as error:
            raise LogError(f"ACLs: {type(error).__name__} {error}") from error
        complaints = [f"{acl.principal} lacks {_shown(acl)}." for acl in wanted if acl not in found]
        complaints += [
            f"{acl.principal} is denied {_shown(acl)}, which its role needs."
            if acl.permission_type is ACLPermissionType.DENY
            else f"{acl.principal} may {_shown(acl)}, which no role of its gives."
            for acl in found - wanted
            if _matters(acl, wanted)
        ]
        if open_door:
            complaints.append(f"The brokers set {_OPEN_DOOR}: a topic without ACLs is everybody's.")
        return sorted(complaints)

    def close(self) -> None:
        """Close the connections."""
        self._admin.close()

    def _found(self) -> Sequence[ACL]:
        everything = ResourcePatternFilter(ResourceType.ANY, None, ACLResourcePatternType.ANY)
        found, _ = self._admin.describe_acls(
            ACLFilter(None, None, ACLOperation.ANY, ACLPermissionType.ANY, everything)
        )
        return list(found)

    def _open_door(self) -> bool:
        """Whether any broker's file names the setting; its value is not told to clients."""
        brokers = [
            ConfigResource(ConfigResourceType.BROKER, str(broker["broker_id"]))
            for broker in self._admin.describe_cluster()["brokers"]
        ]
        described: Any = self._admin.describe_configs(brokers, config_filter="all")
        return any(_OPEN_DOOR in settings for settings in described["broker"].values())


def _matters(acl: ACL, wanted: set[ACL]) -> bool:
    """Whether an ACL that the table does not have touches this network."""
    if acl.permission_type is ACLPermissionType.DENY:
        return any(
            acl.principal in (other.principal, "User:*")
            and acl.operation in (other.operation, ACLOperation.ALL, *_needs(other.operation))
            and _touches(acl.resource_pattern, other.resource_pattern)
            for other in wanted
        )
    kind = acl.resource_pattern.resource_type
    if kind is ResourceType.CLUSTER:
        return True
    if kind is ResourceType.GROUP:
        # Who is in a group of workers can be given shards, and let them lie.
        return any(_meet(acl.resource_pattern, other) for other in _GROUPS)
    return kind is ResourceType.TOPIC and any(
        _touches(acl.resource_pattern, ResourcePattern(ResourceType.TOPIC, topic))
        for topic in TOPICS
    )


def _touches(pattern: ResourcePattern, other: ResourcePattern) -> bool:
    if pattern.resource_type is not other.resource_type:
        return False
    if pattern.pattern_type is ACLResourcePatternType.PREFIXED:
        return bool(other.resource_name.startswith(pattern.resource_name))
    return pattern.resource_name in ("*", other.resource_name)


def _needs(operation: ACLOperation) -> tuple[ACLOperation, ...]:
    """What the brokers imply by an operation, and whose denial takes that away too."""
    if operation in (ACLOperation.READ, ACLOperation.WRITE):
        return (ACLOperation.DESCRIBE,)
    return ()


def _meet(pattern: ResourcePattern, group: ResourcePattern) -> bool:
    """Whether a pattern has a name in common with a role's groups, which are a prefix."""
    name, prefix = pattern.resource_name, group.resource_name
    if pattern.pattern_type is ACLResourcePatternType.PREFIXED:
        return bool(name.startswith(prefix) or prefix.startswith(name))
    return name == "*" or bool(name.startswith(prefix))


def _shown(acl: ACL) -> str:
    pattern = acl.resource_pattern
    name = pattern.resource_name
    if pattern.pattern_type is ACLResourcePatternType.PREFIXED:
        name += "…"
    operation = acl.operation.name.lower().replace("_", " ")
    return f"{operation} on {pattern.resource_type.name.lower()} {name}"
