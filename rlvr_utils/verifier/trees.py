"""Helpers for the parser's trees."""

from __future__ import annotations

from collections.abc import Callable

#: A kind, followed by trees, tuples of trees or plain values: ``("add", (("num", 2), ("sym", "x")))``.
Tree = tuple


def subtrees(tree: Tree) -> list[Tree]:
    """Return the tree, all trees inside it, and the tuples that contain them."""
    found = [tree]
    for part in found:  # the list grows during the iteration
        found += [child for child in part if isinstance(child, tuple) and child]
    return found


def letters(tree: Tree) -> set[str]:
    """Return the letters of an expression."""
    return {part[1] for part in subtrees(tree) if part[0] == "sym"}


def size(tree: Tree) -> int:
    """Return the number of trees and tuples in a tree."""
    return len(subtrees(tree))


def each(tree: Tree, change: Callable[[Tree], Tree]) -> Tree:
    """Return the tree with ``change`` applied to each part that is a tree or a tuple of trees."""
    return tuple(change(part) if isinstance(part, tuple) and part else part for part in tree)


def replaced(tree: Tree, values: dict[Tree, Tree]) -> Tree:
    """Return the tree with every key of ``values`` replaced by its value."""
    return values[tree] if tree in values else each(tree, lambda part: replaced(part, values))
