"""A data set that nobody has seen, its mapping, and where the public ones are."""

import os
from pathlib import Path

import pytest

from adapters.kafka_broker import CHECKOUT

LONG = os.environ.get("SYNOR_LONG") == "1"
MAPPINGS = CHECKOUT / "scripts" / "mappings"
PUBLIC = CHECKOUT.parent / "shared" / "data"

MACHINES = """host;site;cards;ask
a;oslo;2;1.25
b;oslo;1;1.50
"""

JOBS = """\
{"id":"j1", "who":{"team":"red"}, "hours":1.5, "max":1.25, "from":"2025-03-01T08:00:00.1234567Z"}
{"id": "j2", "who": {"team": "blue"}, "hours": 2, "max": 1.50, "from": "2025-03-01T08:30:00Z"}
{"id": "j3", "who": {"team": "red"}, "hours": 1, "max": 0.50, "from": "2025-03-01T09:00:00Z"}
{"id": "j4", "who": {"team": "test"}, "hours": 1, "max": 2, "from": "2025-03-01T09:10:00Z"}
"""

METERS = """at,job,sent
1740816900,j1,1000000000
1740817800,j1,1500000000
1740817500,j1,1200000000
1740820500,j2,400000000
"""

LOG = """when,what,of,until
2025-03-01 08:40:00,power,a,2025-03-01 08:50:00
2025-03-01 09:30:00,stop,j2,
"""

MAPPING = """
name = "farm"

[time]
origin = "2025-03-01T07:55:00Z"
lead = "5min"

[telemetry]
every = "30s"

[genesis]
round = "5s"
beat = "1min"
grace = "3min"
usage_window = "5min"
closing = "10min"
node_down = "15min"
idle = "10min"

[[catalogue]]
resource = "card"
price = "1.30"
market = true

[[files]]
id = "machines"
path = "machines.csv"
separator = ";"

[[files]]
id = "jobs"
path = "jobs.jsonl"
format = "jsonl"
order = { column = "from", unit = "timestamp" }

[[files]]
id = "meters"
path = "meters.csv"
order = { minus = [{ column = "at", unit = "s" }, { value = 1740815700, unit = "s" }] }
disorder = "10min"

[[files]]
id = "log"
path = "log.csv"
order = { column = "when", unit = "timestamp" }

[[rows]]
file = "machines"
becomes = "node"
key = "host"
provider = "site"
region = "site"
capacity = [{ resource = { value = "card" }, amount = { column = "cards", unit = "milli" } }]

[[rows]]
file = "machines"
becomes = "offer"
node = "host"
resource = { value = "card" }
quantity = { column = "cards", unit = "milli" }
ask = { column = "ask", unit = "nano" }

[[rows]]
file = "jobs"
becomes = "bid"
where = [{ column = "who.team", not = "test" }]
key = "id"
buyer = "who.team"
resource = { value = "card" }
region = { value = "oslo" }
quantity = 1000
limit = { column = "max", unit = "nano" }
term = { column = "hours", unit = "h" }
usage_budget = { value = 1, unit = "nano" }
metered = [{ resource = { value = "network.egress" }, per_second = 1_000_000_000 }]

[[rows]]
file = "jobs"
becomes = "ready"
where = [{ column = "who.team", not = "test" }, { column = "max", at_least = 1 }]
delay = "1min"
bid = "id"

[[rows]]
file = "meters"
becomes = "reading"
bid = "job"
resource = { value = "network.egress" }
total = "sent"

[[rows]]
file = "log"
becomes = "outage"
where = [{ column = "what", is = "power" }]
node = "of"
until = { column = "until", unit = "timestamp" }

[[rows]]
file = "log"
becomes = "end"
where = [{ column = "what", is = "stop" }]
how = "close"
bid = "of"

[totals]
card_seconds = { resources = ["card"], divide = 1_000_000 }
"""


def write_farm(folder: Path) -> tuple[Path, Path]:
    """The invented data and its mapping as files: (mapping, data)."""
    data = folder / "data"
    data.mkdir(parents=True)
    for name, text in {
        "machines.csv": MACHINES,
        "jobs.jsonl": JOBS,
        "meters.csv": METERS,
        "log.csv": LOG,
    }.items():
        (data / name).write_text(text)
    mapping = folder / "farm.toml"
    mapping.write_text(MAPPING)
    return mapping, data


def public(name: str) -> Path:
    """The folder of a public data set; the test is skipped where it is not beside the checkout."""
    folder = PUBLIC / name
    if not folder.is_dir():
        pytest.skip(f"{name} is not in ../shared/data beside the checkout")
    return folder
