"""What two trainings had in common, in words."""

from __future__ import annotations

from collections.abc import Callable

from aqnet.training.identity import Identity

__all__ = ["identity_differences"]


def _short(digest: str | None) -> str:
    return "none" if digest is None else f"{digest[:12]}..."


def _plain(name: str) -> Callable[[Identity], str]:
    return lambda identity: str(getattr(identity, name))


def _named(name: str) -> Callable[[Identity], str]:
    return lambda i: f"{getattr(i, name)} ({_short(getattr(i, f'{name}_sha256'))})"


def _digest(name: str) -> Callable[[Identity], str]:
    return lambda identity: _short(getattr(identity, f"{name}_sha256"))


# What each field is called in a message, and how its value is shown.
_WORDS: dict[str, tuple[tuple[str, ...], Callable[[Identity], str]]] = {
    "kind of data": (("kind",), _plain("kind")),
    "data manifest": (("manifest", "manifest_sha256"), _named("manifest")),
    "grid": (("grid", "grid_sha256"), _named("grid")),
    "mask of the domain": (("mask_sha256",), _digest("mask")),
    "normalisation values": (("normaliser_sha256",), _digest("normaliser")),
    "file of statistics": (("statistics_sha256",), _digest("statistics")),
    "wind scan": (("scan_sha256",), _digest("scan")),
    "terrain": (("terrain_sha256",), _digest("terrain")),
    "weather at the valid time": (("weather",), _plain("weather")),
    "made-up data": (("synthetic",), _plain("synthetic")),
}


def _variables(a: tuple[str, ...], b: tuple[str, ...]) -> tuple[str, str]:
    """Names that only one has; if there are none, the first place where the order differs."""
    if set(a) == set(b) and len(a) == len(b):
        at = next(i for i, names in enumerate(zip(a, b, strict=True)) if names[0] != names[1])
        return f"{a[at]} in place {at + 1}", f"{b[at]} in place {at + 1}, another order"
    only = [[n for n in own if n not in other] for own, other in ((a, b), (b, a))]
    return tuple(
        f"{len(own)}, with {', '.join(extra)}" if extra else f"{len(own)}, none of them"
        for own, extra in zip((a, b), only, strict=True)
    )


def _stores(a: Identity, b: Identity) -> tuple[str, str]:
    """The stores that differ, at most four on each side."""
    shown = []
    for own, other in ((a.stores, b.stores), (b.stores, a.stores)):
        extra = [f"{name} ({_short(sha)})" for name, sha in own if (name, sha) not in other]
        more = f" and {len(extra) - 4} more" if len(extra) > 4 else ""
        shown.append(", ".join(extra[:4]) + more if extra else "none of its own")
    if shown[0] == shown[1]:
        return tuple(", ".join(n for n, _ in i.stores) + " (order)" for i in (a, b))
    return tuple(shown)


def identity_differences(a: Identity, b: Identity) -> dict[str, tuple[str, str]]:
    """What differs, by its name in words: as `a` has it, as `b` has it; empty if nothing does.

    Digests are cut to 12 digits in the text, and compared whole.
    """
    found: dict[str, tuple[str, str]] = {}
    for words, (names, show) in _WORDS.items():
        if any(getattr(a, name) != getattr(b, name) for name in names):
            found[words] = show(a), show(b)
    for words, name in (("variables", "variables"), ("static variables", "static_variables")):
        if getattr(a, name) != getattr(b, name):
            found[words] = _variables(getattr(a, name), getattr(b, name))
    if a.stores != b.stores:
        found["data stores"] = _stores(a, b)
    return found
