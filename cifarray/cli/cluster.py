"""Commands on clusters: the Ray node of this machine, or a namespace of a Kubernetes cluster."""

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from cifarray.cli import output
from cifarray.cli.options import ClusterOption, JsonOption, QuietOption, VerboseOption, YesOption
from cifarray.errors import InputError

if TYPE_CHECKING:
    from cifarray.backends.base import Backend, CommandOutput

OverlayOption = Annotated[
    str | None,
    typer.Option(
        "--overlay",
        metavar="NAME",
        help="Which of the shipped manifests: gpu, local or external-s3.",
        show_default="gpu",
    ),
]
ImageOption = Annotated[
    str | None,
    typer.Option("--image", help="Image to use instead of the rendered one.", show_default=False),
]
RenderedForOption = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="NAME",
        help="Profile of kind kubernetes to render for.",
        show_default=False,
    ),
]
ForceOption = Annotated[
    bool,
    typer.Option(
        "--force-conflicts", help="Kubernetes: take over fields that another manager owns."
    ),
]
DeleteStoreOption = Annotated[
    bool | None,
    typer.Option(
        "--delete-store/--keep-store",
        help="Kubernetes: delete the store's volume claim too, with every dataset and run.",
        show_default="ask; with --yes keep it",
    ),
]
FinalizersOption = Annotated[
    bool,
    typer.Option(
        "--remove-finalizers",
        help="Kubernetes: remove finalizers of RayJobs if no KubeRay operator runs to do it.",
    ),
]

app = typer.Typer(
    help="Start, stop and inspect this machine's Ray node, or a namespace on Kubernetes.",
    rich_markup_mode=None,
)


@app.command()
def render(
    overlay: OverlayOption = None, image: ImageOption = None, cluster: RenderedForOption = None
) -> None:
    """Print the Kubernetes manifests, as shipped or adapted to a profile.

    With --cluster these are the objects that `cluster up` applies, with the profile's image,
    namespace and store.

    \b
    Example:  cifarray cluster render --overlay local | kubectl apply -f -
    """
    from cifarray.backends.kubernetes.manifests import (
        DEFAULT_OVERLAY,
        as_yaml,
        manifests,
        overlay_text,
    )

    chosen = overlay or DEFAULT_OVERLAY
    if cluster is not None:
        text = as_yaml(_backend(cluster).manifests(overlay, image))
    else:
        text = as_yaml(manifests(chosen, image)) if image else overlay_text(chosen)
    print(text, end="")


@app.command()
def up(
    cluster: ClusterOption = "local",
    overlay: OverlayOption = None,
    force_conflicts: ForceOption = False,
    json: JsonOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Start a Ray node here, or set up a namespace on Kubernetes; wait until it is ready.

    \b
    Example:  cifarray cluster up
              cifarray cluster up --cluster kubernetes --overlay local
    """
    backend = _backend(cluster)
    _show(backend.up(overlay, force_conflicts, output), json)
    if not backend.own and not json:
        words = f" --cluster {shlex.quote(cluster)}"
        output.say(f"next: cifarray submit tune-digits --prepare{words}; `cifarray doctor{words}`")


@app.command()
def down(
    cluster: ClusterOption = "local",
    yes: YesOption = False,
    delete_store: DeleteStoreOption = None,
    remove_finalizers: FinalizersOption = False,
    json: JsonOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Stop cifarray's Ray node, or delete what cifarray created on Kubernetes.

    \b
    Example:  cifarray cluster down
              cifarray cluster down --cluster kubernetes --keep-store
    """
    ending = _backend(cluster).down(delete_store, remove_finalizers, output)
    if ending.question and not yes:
        if not output.can_ask():
            raise InputError(ending.refusal)
        if not output.ask(ending.question):
            return
    can_ask = delete_store is None and not yes and output.can_ask()
    if can_ask and ending.store_question:
        delete_store = output.ask(ending.store_question)
    _show(ending.execute(bool(delete_store)), json)


@app.command()
def status(
    cluster: ClusterOption = "local", json: JsonOption = False, quiet: QuietOption = False
) -> None:
    """Show whether the cluster answers, its address, and what runs on it.

    \b
    Example:  cifarray cluster status
              cifarray cluster status --cluster kubernetes
    """
    _show(_backend(cluster).status(), json)


def _backend(cluster: str) -> "Backend":
    from cifarray.backends.choice import backend_of
    from cifarray.spec.load import load_profile

    return backend_of(load_profile(cluster))


def _show(shown: "CommandOutput", as_json: bool) -> None:
    if as_json:
        output.print_json(shown.data)
        return
    for line in shown.lines:
        output.print_line(line)
    for columns, rows in shown.tables:
        output.print_line()
        output.print_table(columns, rows)
    for remark in shown.remarks:
        output.say(remark)
