"""How the machine, its models and their memory are shown: bars and short tables, as HTML, every text escaped."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from html import escape

from components.texts import in_language, text
from core.downloads import Download
from core.residency import Resident
from core.resources import Resources
from providers.errors import Cancelled
from providers.types import Fit, MemoryEstimate

MARKS: dict[Fit, str] = {"fits": "✓", "tight": "◐", "does_not_fit": "✕"}


def size_text(size_bytes: float | None) -> str:
    """Return a size as people read it, in decimal units."""
    if size_bytes is None:
        return "–"
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.1f} {unit}"
    return f"{size_bytes / 1e3:.0f} kB"


def machine_html(resources: Resources, language: str) -> str:
    """Show the machine: a bar for the memory, for each GPU and for the disk, with what is free."""
    cores = text("machine_cores", language, cores=resources.processor.cores)
    rows = [
        _bar(text("machine_ram", language), resources.ram.available_bytes, resources.ram.total_bytes, language),
        *(
            _bar(f"{gpu.name} ({gpu.device})", gpu.memory.available_bytes, gpu.memory.total_bytes, language)
            for gpu in resources.gpus
        ),
        _bar(text("machine_disk", language), resources.disk.available_bytes, resources.disk.total_bytes, language),
    ]
    own = text("machine_own", language, size=size_text(resources.own_bytes))
    head = f"<p class='quiet'>{escape(resources.processor.name)} · {escape(cores)} · {escape(own)}</p>"
    return f"<div class='bars'>{''.join(rows)}</div>{head}"


def loaded_html(residents: Sequence[Resident], speeds: dict[str, float], language: str) -> str:
    """Show what is in memory: how, how large by estimate and by measurement, how fast, since when."""
    if not residents:
        return f"<p class='quiet'>{escape(text('loaded_none', language))}</p>"
    cards = []
    for each in sorted(residents, key=lambda resident: -resident.model.loaded_at):
        model, model_id = each.model, f"{each.provider.info.key}/{each.model.name}"
        speed = speeds.get(model_id)
        facts = [
            (text("loaded_memory", language), size_text(each.held_bytes)),
            (text("loaded_estimated", language), size_text(model.estimated_bytes)),
            (text("loaded_context", language), f"{model.context_length:,}"),
            (text("loaded_speed", language), f"{speed:.1f}" if speed else "–"),
            (text("loaded_since", language), _since(model.loaded_at, language)),
        ]
        how = " · ".join(
            part
            for part in (
                model.device,
                model.precision,
                model.quantization if model.quantization != "none" else "",
                text("loaded_busy", language) if each.provider.is_busy(model.name) else "",
            )
            if part
        )
        reason = f"<p class='quiet'>{escape(in_language(model.reason, language))}</p>" if model.reason else ""
        cells = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts)
        cards.append(
            f"<section class='card'><h4>{escape(model_id)} <small>{escape(how)}</small></h4><dl>{cells}</dl>{reason}"
            "</section>"
        )
    return "".join(cards)


def estimate_html(estimate: MemoryEstimate, language: str) -> str:
    """Show what a model would take: one bar with its parts, against what is free."""
    parts = [
        ("weights", text("estimate_weights", language), estimate.weights_bytes),
        ("cache", text("estimate_cache", language, tokens=f"{estimate.context_length:,}"), estimate.kv_cache_bytes),
        ("overhead", text("estimate_overhead", language), estimate.overhead_bytes),
    ]
    whole = max(estimate.total_bytes, estimate.available_bytes, 1)
    spans = "".join(f"<i class='{kind}' style='width:{100 * size / whole:.1f}%'></i>" for kind, _, size in parts)
    keys = "".join(
        f"<li><b class='{kind}'></b>{escape(name)}: {size_text(size)}</li>" for kind, name, size in parts if size
    )
    verdict = {
        "fits": text("estimate_fits", language),
        "tight": text("estimate_tight", language),
        "does_not_fit": text("estimate_does_not_fit", language),
    }[estimate.fit]
    head = text(
        "estimate_head",
        language,
        total=size_text(estimate.total_bytes),
        free=size_text(estimate.available_bytes),
        device=estimate.device,
    )
    how = " · ".join(
        [estimate.precision] + ([estimate.quantization] if estimate.quantization not in ("none", "") else [])
    )
    said = [in_language(estimate.reason, language)]
    if estimate.fit == "does_not_fit" and estimate.suggestion:
        said.append(in_language(estimate.suggestion, language))
    return (
        f"<div class='estimate {estimate.fit}'><p><strong>{MARKS[estimate.fit]} {escape(verdict)}</strong> "
        f"{escape(head)}</p><div class='bar'>{spans}</div><ul>{keys}</ul>"
        f"<p class='quiet'>{escape(how)}. {escape(' '.join(said))}</p></div>"
    )


def downloads_html(downloads: Iterable[Download], language: str) -> str:
    """Show what is being fetched, and what was not fetched to its end."""
    return "".join(_download(each, language) for each in downloads if each.state != "done")


def _download(download: Download, language: str) -> str:
    done, total = download.progress.done, download.progress.total
    share = 100 * done / total if total else 0
    if download.state == "running":
        line = text(
            "download_running",
            language,
            done=size_text(done),
            total=size_text(total),
            speed=size_text(download.bytes_per_second),
        )
        if total and download.bytes_per_second > 0:
            line += f" · {_duration((total - done) / download.bytes_per_second)}"
    elif isinstance(download.error, Cancelled):
        line = text("download_stopped", language, done=size_text(done), total=size_text(total))
    else:
        line = in_language(download.error.message, language) if download.error else ""
    return (
        f"<section class='card {download.state}'><h4>{escape(download.model_id)}</h4>"
        f"<div class='bar' role='progressbar' aria-valuenow='{share:.0f}' aria-label='{escape(download.model_id)}'>"
        f"<i class='weights' style='width:{share:.1f}%'></i></div><p class='quiet'>{escape(line)}</p></section>"
    )


def _bar(name: str, free: int, total: int, language: str) -> str:
    share = 100 * (1 - free / total) if total else 0
    line = text("machine_free", language, free=size_text(free), total=size_text(total))
    kind = "overhead" if share > 85 else "weights"
    return (
        f"<div class='resource'><span>{escape(name)}</span><span class='quiet'>{escape(line)}</span>"
        f"<div class='bar'><i class='{kind}' style='width:{share:.1f}%'></i></div></div>"
    )


def _since(when: float, language: str) -> str:
    return text("loaded_ago", language, duration=_duration(time.time() - when)) if when else "–"


def _duration(seconds: float) -> str:
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"
