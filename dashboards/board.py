"""A board as short Python, and the Grafana dashboard that is made of it with Grafana's own typed builders.

A query is PromQL by the rules of `alerting.metrics.promql`: what it names must be declared by a process. Each selector gets the board's
``job`` and ``instance``, that of a recorded series its ``ledger`` (`LEDGER`). The JSON is that of Grafana 11.6 (https://github.com/grafana/grafana-foundation-sdk).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as commons
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from alerting.metrics import promql

__all__ = ["LEDGER", "Board", "Links", "Panel", "Query", "Row", "Variable", "to_json"]

MATCHERS = 'job=~"$job",instance=~"$instance"'
_RECORDED = 'ledger=~"$ledger"'
_OURS = '{__name__=~"tally_collector_info|tally_correlator_epoch|tally_api_accesses_total|tally_check_findings|tally_detector_behind_leaves|tally_siem_behind_leaves|tally_incidents_behind_leaves"}'
"""What each of our processes has, so that nobody else's jobs are offered."""

_SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
_GOOD, _WARN, _BAD = "green", "orange", "red"


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """Where links lead: base of the audit API without a slash at the end, of the runbooks with one; empty: no links there."""

    api: str = ""
    runbooks: str = ""


@dataclass(frozen=True, slots=True)
class Query:
    """PromQL, and how its series are called (``{{service}}``), in a table its column; `exemplars`: with traces; `unit`: a column's own."""

    expr: str
    legend: str
    exemplars: bool = False
    unit: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One panel.

    Attributes:
        kind: ``graph`` over time, ``stat`` and ``bars`` of now, ``table`` of now with a column for each query.
        title, text: what it is called, and what it means for whoever looks at it.
        unit: Grafana's id of a unit.
        queries: what is asked.
        width, height: of 24 columns; in rows of 30 pixels.
        warn, bad: from this value on it is orange, red. `low_is_bad`: below it.
        stacked: areas on top of each other.
        top: the end of the axis.
        by: label that the rows of a table, or the links of a graph, are about.
        trails: path of the audit API behind a click, where `${__field.labels.X}` is a label's value.
        runbook: alert whose runbook says what to do.
    """

    kind: Literal["graph", "stat", "bars", "table"] = "graph"
    title: str
    text: str
    unit: str
    queries: Sequence[Query]
    width: int = 8
    height: int = 7
    warn: float | None = None
    bad: float | None = None
    low_is_bad: bool = False
    stacked: bool = False
    top: float | None = None
    by: str = ""
    trails: str = ""
    runbook: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Panels under a heading."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """A choice at the top of a board: the values of a label of a metric."""

    name: str
    label: str
    metric: str


LEDGER = Variable(name="ledger", label="Ledger", metric="service:tally_slo_objective:ratio")
"""The choice of boards that ask for what rules record, which has no job and no instance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """A board: its uid (``tally-…``), title, what it answers, its choices beside job and instance, and its rows."""

    uid: str
    title: str
    text: str
    rows: Sequence[Row]
    variables: Sequence[Variable] = ()

    def build(self, links: Links) -> dict[str, Any]:
        """The dashboard as Grafana reads it. Raises `alerting.metrics.UnknownMetric`."""
        made = (
            dashboard.Dashboard(self.title)
            .uid(self.uid)
            .description(self.text)
            .tags(["tallystick"])
            .refresh("30s")
            .time("now-1h", "now")
            .timezone("browser")
            .readonly()
            .tooltip(models.DashboardCursorSync.CROSSHAIR)
            .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        )
        chosen = (
            Variable(name="job", label="Job", metric=_OURS),
            Variable(name="instance", label="Instance", metric=_OURS.replace("}", ',job=~"$job"}')),
            *self.variables,
        )
        for one in chosen:
            metric = one.metric if one.metric.startswith(_OURS[:5]) else promql(one.metric, MATCHERS)
            made.with_variable(_choice(one, metric))
        made.link(
            dashboard.DashboardLink("Boards").type(models.DashboardLinkType.DASHBOARDS).tags(["tallystick"])
            .as_dropdown(True).include_vars(True).keep_time(True)
        )  # fmt: skip
        if links.api:
            made.link(
                dashboard.DashboardLink("Audit API").type(models.DashboardLinkType.LINK).url(f"{links.api}/v1/status")
            )
        for row in self.rows:
            made.with_row(dashboard.Row(row.title))
            for panel in row.panels:
                made.with_panel(_panel(panel, links))
        plain: dict[str, Any] = to_json(made.build())
        for at, panel in enumerate(
            plain["panels"], 1
        ):  # the builders number nothing, and links to a panel need its number
            panel["id"] = at
        for variable in plain["templating"]["list"]:
            for stray in (
                "auto",
                "auto_min",
                "auto_count",
            ):  # of another kind of variable: Grafana's schema has none here
                variable.pop(stray, None)
        return plain


def to_json(built: Any) -> Any:
    """A built object of the SDK as plain values."""
    return json.loads(JSONEncoder(sort_keys=True).encode(built))


def _choice(one: Variable, metric: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(one.name)
        .label(one.label)
        .query(f"label_values({metric}, {one.name})")
        .datasource(_SOURCE)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".+")
        .current(models.VariableOption(selected=True, text="All", value="$__all"))
    )


def _panel(panel: Panel, links: Links) -> Any:
    builder: Any = {"graph": _graph, "stat": _stat, "bars": _bars, "table": _table}[panel.kind](panel)
    builder.title(panel.title).description(panel.text).datasource(_SOURCE).unit(panel.unit)
    builder.span(panel.width).height(panel.height).thresholds(_thresholds(panel))
    for at, query in enumerate(panel.queries):
        builder.with_target(_target(panel, query, chr(ord("A") + at)))
    if links.runbooks and panel.runbook:
        url = f"{links.runbooks}{panel.runbook}.md"
        builder.links(
            [dashboard.DashboardLink(f"Runbook: {panel.runbook}").type(models.DashboardLinkType.LINK).url(url)]
        )
    if links.api and panel.trails:
        url = f"{links.api}{panel.trails}"
        builder.data_links(
            [dashboard.DashboardLink("Trails").type(models.DashboardLinkType.LINK).url(url).target_blank(True)]
        )
    return builder


def _target(panel: Panel, query: Query, ref: str) -> prometheus.Dataquery:
    made = (
        prometheus.Dataquery()
        .expr(promql(query.expr, MATCHERS, _RECORDED))
        .legend_format(query.legend)
        .ref_id(ref)
        .datasource(_SOURCE)
    )
    if panel.kind == "graph":
        return made.range().exemplar(query.exemplars)
    made.instant()
    return made.format(PromQueryFormat.TABLE) if panel.kind == "table" else made


def _thresholds(panel: Panel) -> dashboard.ThresholdsConfig:
    marks = [(value, color) for value, color in ((panel.warn, _WARN), (panel.bad, _BAD)) if value is not None]
    if panel.low_is_bad:  # red below `bad`, orange below `warn`, green from there on
        colors = [_BAD, *((_WARN, _GOOD) if len(marks) == 2 else (_GOOD,))]
        values = [None, *sorted(value for value, _ in marks)]
        steps = list(zip(values, colors, strict=True)) if marks else [(None, _GOOD)]
    else:
        steps = [(None, _GOOD), *marks]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(
        [models.Threshold(value=value, color=color) for value, color in steps]
    )  # fmt: skip


def _graph(panel: Panel) -> timeseries.Panel:
    legend = (
        common.VizLegendOptions()
        .display_mode(commons.LegendDisplayMode.LIST)
        .placement(commons.LegendPlacement.BOTTOM)
        .show_legend(True)
    )
    made = (
        timeseries.Panel()
        .legend(legend)
        .tooltip(common.VizTooltipOptions().mode(commons.TooltipDisplayMode.MULTI).sort(commons.SortOrder.DESCENDING))
        .line_width(1)
        .fill_opacity(30 if panel.stacked else 8)
        .show_points(commons.VisibilityMode.NEVER)
        .min(0)
    )
    if panel.stacked:
        made.stacking(common.StackingConfig().mode(commons.StackingMode.NORMAL))
    if panel.top is not None:
        made.max(panel.top)
    if panel.warn is not None or panel.bad is not None:
        made.thresholds_style(common.GraphThresholdsStyleConfig().mode(commons.GraphThresholdsStyleMode.DASHED))
    return made


def _last() -> common.ReduceDataOptions:
    return common.ReduceDataOptions().calcs(["lastNotNull"])


def _stat(panel: Panel) -> stat.Panel:
    made = (
        stat.Panel()
        .reduce_options(_last())
        .color_mode(commons.BigValueColorMode.VALUE)
        .graph_mode(commons.BigValueGraphMode.NONE)
    )
    return made.decimals(0) if panel.unit == "short" else made  # what is counted is whole, an increase is not


def _bars(panel: Panel) -> bargauge.Panel:
    made = (
        bargauge.Panel()
        .reduce_options(_last())
        .orientation(commons.VizOrientation.HORIZONTAL)
        .display_mode(commons.BarGaugeDisplayMode.BASIC)
        .min(0)
    )
    return made.max(panel.top) if panel.top is not None else made


def _table(panel: Panel) -> table.Panel:
    names = {f"Value #{chr(ord('A') + at)}": query.legend for at, query in enumerate(panel.queries)}
    hidden = {"Time": True, **{f"Time {at}": True for at in range(1, len(panel.queries) + 1)}}
    made = (
        table.Panel()
        .cell_height(commons.TableCellHeight.SM)
        .transformations(
            [
                models.DataTransformerConfig(id_val="joinByField", options={"byField": panel.by, "mode": "outer"}),
                models.DataTransformerConfig(
                    id_val="organize", options={"excludeByName": hidden, "renameByName": names}
                ),
            ]
        )
    )
    for query in panel.queries:
        if query.unit:
            made.override_by_name(query.legend, [models.DynamicConfigValue(id_val="unit", value=query.unit)])
        elif panel.unit == "short":  # as in _stat
            made.override_by_name(query.legend, [models.DynamicConfigValue(id_val="decimals", value=0)])
    return made
