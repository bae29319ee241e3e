"""Reads the tables of flows in docs/ and says what they expect of any two endpoints."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.unit.kubernetes.network import Endpoint, Policy, lets_in, lets_out
from tests.unit.kubernetes.ray_pods import Pod
from tests.unit.kubernetes.shipped import REPOSITORY, RUN_A

HEADER = ["from", "to", "port", "", "why"]
Port = tuple[int, str]
NAMESPACE = {"kubernetes.io/metadata.name": "cifarray"}
SYSTEM = {"kubernetes.io/metadata.name": "kube-system"}
OTHER = {"kubernetes.io/metadata.name": "other"}
PORTS: tuple[Port, ...] = (
    *((port, "TCP") for port in (53, 443, 6443, 7070, 8080, 8265, 9808, 44217, 44227, 31415)),
    *((port, "UDP") for port in (53, 31415)),
)
"""Every port that a policy or the table names, and one that none does."""


@dataclass(frozen=True)
class Row:
    """A line of a table."""

    source: frozenset[str]
    target: frozenset[str]
    ports: frozenset[Port] | None
    """None: any."""
    allowed: bool
    why: str


@dataclass(frozen=True)
class Actor:
    """An endpoint with the names that the table may call it by."""

    endpoint: Endpoint
    names: frozenset[str]
    ours: bool
    run: str | None = None


@dataclass(frozen=True)
class Flow:
    """A connection that somebody may try."""

    source: Actor
    target: Actor
    port: Port

    @property
    def names(self) -> tuple[frozenset[str], frozenset[str]]:
        """What the table calls both ends; the first run that is met is its run A."""
        first = self.source.run or self.target.run
        return _with_run(self.source, first), _with_run(self.target, first)

    def __str__(self) -> str:
        number, protocol = self.port
        return f"{self.source.endpoint.name} to {self.target.endpoint.name}, {number}/{protocol}"


def tables() -> tuple[list[Row], list[Row]]:
    """The table of flows, and the rows that an external store puts before it."""
    found = [
        tables for path in sorted((REPOSITORY / "docs").glob("*.md")) if (tables := _read(path))
    ]
    ((first, second),) = found
    return first, second


def expected(rows: Iterable[Row], flow: Flow) -> Row:
    """The first row that fits."""
    source, target = flow.names
    for row in rows:
        if (
            row.source & source
            and row.target & target
            and (row.ports is None or flow.port in row.ports)
        ):
            return row
    raise ValueError(f"no row is about {flow}")


def differences(
    rows: list[Row], policies: Iterable[Policy], flows: Iterable[Flow]
) -> Iterator[str]:
    """Each flow that the policies of one of our pods treat otherwise than the table says.

    Between two of ours both sides have to agree with it: what one side refuses, the other must not
    be found to let through on the day on which the first is changed. Only a pod that may reach any
    address at a port gets out to our pods there too, since its policy can name no address.
    """
    policies = list(policies)
    for flow in flows:
        source, target = flow.source, flow.target
        wanted = expected(rows, flow).allowed
        ends = (source.endpoint, target.endpoint, *flow.port)
        if target.ours and lets_in(policies, *ends) != wanted:
            yield f"{flow}: it is not {_verdict(wanted)} on its way in"
        if source.ours:
            wanted = wanted or expected(rows, Flow(source, INTERNET, flow.port)).allowed
            if lets_out(policies, *ends) != wanted:
                yield f"{flow}: it is not {_verdict(wanted)} on its way out"


def flows_between(actors: list[Actor]) -> list[Flow]:
    """Every connection of which one end is ours; a pod stands for all of its group."""
    return [
        Flow(source, target, port)
        for source in actors
        for target in actors
        if source.ours or target.ours
        for port in PORTS
    ]


def our_actors(pods: Iterable[Pod]) -> list[Actor]:
    """The pods of manifests, and one that somebody starts beside them."""
    stranger = Pod("a pod of no use", "cifarray", {"app": "something"}, {})
    return [_ours(pod) for pod in (*pods, stranger)]


def others() -> list[Actor]:
    """Who else there is, some of them in our pods' clothes."""
    operator = {"app.kubernetes.io/component": "kuberay-operator"}
    prometheus = {"app.kubernetes.io/name": "prometheus"}
    dns = {"k8s-app": "kube-dns"}
    disguises: tuple[Mapping[str, str], ...] = (
        {"ray.io/cluster": "cifarray", "ray.io/is-ray-node": "yes", "ray.io/node-type": "head"},
        {"cifarray/run": RUN_A},
        {"app.kubernetes.io/name": "cifarray-store"},
        {"cifarray/role": "exporter"},
        {"app.kubernetes.io/part-of": "cifarray"},
    )
    return [
        _other("operator of the Helm chart", "kuberay", OTHER, operator, "operator"),
        _other("operator of the kustomization", "ray-system", OTHER, operator, "operator"),
        _other("Prometheus", "monitoring", OTHER, prometheus, "Prometheus"),
        _other("DNS", "kube-system", SYSTEM, dns, "DNS"),
        _other("who calls itself DNS", "other", OTHER, dns, "elsewhere"),
        _other("another pod of kube-system", "kube-system", SYSTEM, {"app": "x"}, "elsewhere"),
        *(
            _other(f"{label} in another namespace", "other", OTHER, {**labels}, "elsewhere")
            for labels in disguises
            for label in [next(iter(labels))]
        ),
        _outside("the API server", "10.0.0.1", "API server"),
        INTERNET,
    ]


def _with_run(actor: Actor, first: str | None) -> frozenset[str]:
    if actor.run is None:
        return actor.names
    return actor.names | {"run A" if actor.run == first else "run B"}


def _ours(pod: Pod) -> Actor:
    labels = pod.labels
    names = {"any pod", "anything"}
    if pod.of_ray:
        names.add(labels["ray.io/node-type"])
    if labels.get("ray.io/cluster") == "cifarray":
        names |= {"RayCluster"} | ({"RayCluster's head"} if "head" in names else set())
    by_label = {
        ("app.kubernetes.io/name", "cifarray-store"): "store",
        ("cifarray/role", "secrets"): "secrets Job",
        ("cifarray/role", "bucket"): "bucket Job",
        ("cifarray/role", "exporter"): "exporter",
    }
    names |= {name for (key, value), name in by_label.items() if labels.get(key) == value}
    endpoint = Endpoint(pod.where, pod.namespace, labels, NAMESPACE)
    return Actor(endpoint, frozenset(names), True, labels.get("cifarray/run"))


def _other(
    name: str, namespace: str, of: Mapping[str, str], labels: Mapping[str, str], called: str
) -> Actor:
    return Actor(Endpoint(name, namespace, labels, of), _elsewhere(called), False)


def _outside(name: str, address: str, called: str) -> Actor:
    return Actor(Endpoint(name, address=address), _elsewhere(called), False)


def _elsewhere(called: str) -> frozenset[str]:
    return frozenset({called, "elsewhere", "anything"})


INTERNET = _outside("an address in the internet", "203.0.113.7", "elsewhere")


def _verdict(passes: bool) -> str:
    return "allowed" if passes else "refused"


def _read(path: Path) -> list[list[Row]]:
    """Every table of flows in a file."""
    found: list[list[Row]] = []
    inside = False
    for line in path.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.startswith("|"):
            inside = False
        elif cells == HEADER:
            inside = True
            found.append([])
        elif inside and set(line) - set("|-: "):
            found[-1].append(_row(cells))
    return found


def _row(cells: list[str]) -> Row:
    source, target, ports, verdict, why = cells
    if verdict not in ("allowed", "refused"):
        raise ValueError(f"a flow is allowed or refused, not '{verdict}'")
    return Row(_names(source), _names(target), _ports(ports), verdict == "allowed", why)


def _names(cell: str) -> frozenset[str]:
    return frozenset(name.strip() for name in cell.split(","))


def _ports(cell: str) -> frozenset[Port] | None:
    if cell == "any":
        return None
    pairs = (each.strip().partition("/") for each in cell.split(","))
    return frozenset((int(number), protocol or "TCP") for number, _, protocol in pairs)
