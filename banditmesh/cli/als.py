"""``banditmesh als``: the taste of users, fitted and published."""

from __future__ import annotations

import json
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from banditmesh.cli.archive import moment, progress, with_store
from banditmesh.cli.plots import check_plot
from banditmesh.runtime.errors import InvalidArgument

if TYPE_CHECKING:
    from banditmesh.bandits.als import AlsParams
    from banditmesh.fit.als import Replayed
    from banditmesh.fit.interactions import Interactions

app = typer.Typer(
    help="Fit the [bold]taste[/] of users for the policies als and blend. See docs/cinema.md.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@app.callback()
def als() -> None:
    """A group of its own, so that more can come beside fit."""


@app.command("fit")
def fit(
    source: Annotated[
        str,
        typer.Argument(
            help="A decision log (a file), or the store whose archive is read: s3://…, file:///folder, a folder."
        ),
    ],
    config: Annotated[
        Path | None, typer.Option(help="mesh.yaml, whose placement has als or blend. Absent: --policy says it.")
    ] = None,
    placement: Annotated[str | None, typer.Option(help="Whose model it is; absent: the one that has als.")] = None,
    policy: Annotated[str, typer.Option(help="Without --config: als:factors=64,regularization=10.")] = "als",
    save: Annotated[
        str | None, typer.Option(help="Publish into this store: s3://…, file:///folder. Absent: it is only measured.")
    ] = None,
    since: Annotated[str, typer.Option(help="Of the archive: a time, or how long ago.")] = "90d",
    until: Annotated[str, typer.Option(help="Of the archive: a time, or how long ago.")] = "0",
    liked: Annotated[float, typer.Option(help="Of a log: the reward from which on a content was liked.")] = 1.0,
    disliked: Annotated[
        float | None, typer.Option(help="Of a log: the reward up to which it was disliked. Absent: none was.")
    ] = None,
    service: Annotated[str, typer.Option(help="Of a log: the service of contents that name none.")] = "",
    tune: Annotated[
        str | None, typer.Option(help="k: find the blend's k by a replay of those who came last. Absent: no replay.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="With --tune: draw what it found into this PNG file. Absent: no plot.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the first factors.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Fit implicit ALS on a [bold]decision log[/] or a mesh's [bold]archive[/], and publish it where engines look.

    Engines swap it in beside the traffic; without --save it is only measured.
    """
    from banditmesh.fit.als import fit as fitted

    if tune not in (None, "k"):
        raise InvalidArgument("can be k alone", field="tune", value=tune)
    if plot is not None and tune is None:
        raise InvalidArgument("draws what --tune finds: add --tune k", field="plot", value=str(plot))
    check_plot(plot)
    where, params, half_life_s = _asked(config, placement, policy)
    started = time.monotonic()
    found = _interactions(source, where, moment(since, "since"), moment(until, "until"), liked, disliked, service)
    replayed = None
    if tune is not None:
        from banditmesh.fit.als import replay

        with progress("replay") as tell:
            _, replayed = replay(params, found, half_life_s, seed=seed, tell=tell)
    with progress("fit") as tell:
        model = fitted(params, found, seed, tell)
    report: dict[str, Any] = {
        "placement": where,
        "params": params.model_dump(mode="json"),
        "events": len(found),
        "users": found.n_users,
        "contents": len(model.keys),
        "seconds": round(time.monotonic() - started, 3),
    }
    if replayed is not None:
        report |= _tuned(replayed)
    if save is not None:
        from banditmesh.fit.save import publish

        now_ms, name = int(time.time() * 1000), where or "default"
        version = with_store(save, lambda store: publish(store, name, model, len(found), now_ms=now_ms), make=True)
        report["saved"] = {"store": save, "version": version}
    if as_json:
        print(json.dumps(report, allow_nan=False))
    else:
        _show(report)
    if plot is not None and replayed is not None:
        from banditmesh.fit.als_plot import draw

        draw(replayed, plot)


def _asked(config: Path | None, placement: str | None, policy: str) -> tuple[str | None, AlsParams, float]:
    """Which placement's model is wanted, its parameters, and the half-life of the counters beside it."""
    from banditmesh.bandits.als import Als, AlsParams
    from banditmesh.bandits.blend import Blend, BlendParams
    from banditmesh.bandits.registry import policy_params
    from banditmesh.decisions.spec import parse
    from banditmesh.runtime.mesh import load_mesh

    default = BlendParams().popular.half_life
    if config is None:
        spec = parse(policy)
        params = policy_params(spec.policy, spec.params)
        if isinstance(params, BlendParams):
            return placement, params.personal.als, params.popular.half_life
        if not isinstance(params, AlsParams):
            raise InvalidArgument("must be als or blend", field="policy", value=policy)
        return placement, params, default
    mesh = load_mesh(config)
    models = {key: each for key, each in mesh.models().items() if each.policy == Als.name}
    names = sorted({name for name, _ in models})
    if placement is None and len(names) == 1:
        (placement,) = names
    if placement not in names:
        there = f"there is: {', '.join(names)}" if names else "no placement of it has one"
        raise InvalidArgument(f"has no model of als; {there}", field="placement", value=placement)
    own = [each for (name, _), each in models.items() if name == placement]
    if len(own) > 1:
        raise InvalidArgument(
            f"has {len(own)} models of als with different parameters; fit one at a time with --policy",
            field="placement",
            value=placement,
        )
    params = policy_params(Als.name, own[0].params)
    assert isinstance(params, AlsParams)
    for variant in mesh.placements[placement].experiment.variants.values():
        if variant.policy_name == Blend.name:
            blend = policy_params(Blend.name, variant.policy_params)
            assert isinstance(blend, BlendParams)
            return placement, params, blend.popular.half_life
    return placement, params, default


def _interactions(
    source: str,
    placement: str | None,
    since: datetime,
    until: datetime,
    liked: float,
    disliked: float | None,
    service: str,
) -> Interactions:
    from banditmesh.fit.interactions import of_archive, of_log

    path = Path(source)
    if "://" not in source and not path.is_dir():
        return of_log(path, liked, disliked, service)
    if placement is None:
        raise InvalidArgument("is needed for an archive: whose examples?", field="placement")
    if not since < until:
        raise InvalidArgument("must be before --until", field="since", value=since.isoformat())
    url = source if "://" in source else path.absolute().as_uri()
    return with_store(url, lambda store: of_archive(store, [placement], since, until))


def _tuned(replayed: Replayed) -> dict[str, Any]:
    k = replayed.best
    return {
        "k": replayed.ks[k],
        "buckets": [
            {"feedback": name, "steps": steps, "popular": popular, "personal": personal, "blend": blend}
            for name, steps, popular, personal, blend in replayed.table(k)
        ],
    }


def _show(report: dict[str, Any]) -> None:
    console = Console()
    console.print(
        f"{report['events']} events of {report['users']} users with {report['contents']} contents, "
        f"{report['seconds']:.1f} s"
    )
    if "buckets" in report:
        table = Table("feedback", "steps", "popular", "personal", "blend", header_style="bold")
        for row in report["buckets"]:
            figures = (f"{row[name]:.4f}" for name in ("popular", "personal", "blend"))
            table.add_row(row["feedback"], str(row["steps"]), *figures)
        console.print(table)
        console.print("The mean gain of what was liked next: 1 / log2(1 + rank) among the first ten.")
        console.print(f"In mesh.yaml: k: {report['k']:g}")
    if "saved" in report:
        saved = report["saved"]
        console.print(f"Published: version {saved['version']} in {saved['store']}", soft_wrap=True, markup=False)
