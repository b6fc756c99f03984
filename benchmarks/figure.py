"""Draws the ratios of a table of benchmarks as bars, each with its target."""

MET, MISSED = "#4c9a6a", "#d0613c"


def require():
    """Imports matplotlib, or exits with the command that installs it: call this before measuring."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        raise SystemExit("--figure needs matplotlib: pip install matplotlib, or owl-engine[bench]") from None
    matplotlib.use("Agg")


def draw(results, title, path):
    """Draws those of `results` that have a ratio, from the top."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FuncFormatter, LogLocator

    shown = [r for r in results if r.ratios]
    if not shown:
        raise SystemExit(f"{path} is not drawn: there is no ratio")
    figure, axes = plt.subplots(figsize=(10, 1.4 + 0.36 * len(shown)), dpi=120)
    least = min(min(r.ratio, r.at_most) for r in shown)
    axes.set_xscale("log")
    for place, r in enumerate(shown):
        axes.barh(place, r.ratio, height=0.62, color=MET if r.met else MISSED)
        axes.plot([min(r.ratios), max(r.ratios)], [place, place], color="black", linewidth=1)
        axes.plot([r.at_most, r.at_most], [place - 0.42, place + 0.42], color="black", linewidth=2)
        axes.annotate(f"{r.ratio:.3g}", (max(r.at_most, *r.ratios), place), xytext=(6, 0), textcoords="offset points",
                      va="center", fontsize=8)  # fmt: skip
    axes.set_yticks(range(len(shown)), [f"{r.work.rpartition(',')[0]}\nagainst {r.name}" for r in shown], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(least / 2, 2 * max(max(r.at_most, *r.ratios) for r in shown))
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(LogLocator(subs=()))
    axes.axvline(1, color="#888888", linewidth=0.8, linestyle=":", zorder=0)
    axes.set_xlabel("owl / the other (logarithmic): less is better; thick mark: wanted at most; thin line: range")
    axes.set_title(title, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)


def draw_lines(lines, across, up, path):
    """Draws `lines`, each a title, positions and heights, over a logarithmic axis."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 4.5), dpi=120)
    for title, xs, ys in lines:
        axes.plot(xs, ys, label=title, marker=".", linestyle="--" if title.endswith("tree") else "-")
    axes.set_xscale("log", base=2)
    axes.set_xticks(lines[0][1], [str(x) for x in lines[0][1]])
    axes.set_ylim(0, 105)
    axes.grid(alpha=0.3)
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
