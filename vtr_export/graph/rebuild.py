"""Modules with other parts, while the ones given stay as they are."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TypeVar, cast

from torch import nn

M = TypeVar("M", bound=nn.Module)


def replace_modules(module: M, change: Callable[[nn.Module], nn.Module | None]) -> M:
    """A copy of a tree of modules in which `change` gives some of them a successor. What is shared stays shared, and
    the tree given stays as it was."""
    done: dict[int, nn.Module] = {}

    def visit(old: nn.Module) -> nn.Module:
        if id(old) not in done:
            # Not named_children(), which passes over a part's second name.
            parts = {name: visit(part) for name, part in old._modules.items() if part is not None}
            kept = all(part is old._modules[name] for name, part in parts.items())
            done[id(old)] = change(old) or (old if kept else with_parts(old, **parts))
        return done[id(old)]

    return cast(M, visit(module))


def with_parts(module: M, **parts: nn.Module) -> M:
    """A shallow copy of a module with other parts; the one given keeps its own."""
    changed = copy.copy(module)
    vars(changed)["_modules"] = {**module._modules, **parts}
    return changed
