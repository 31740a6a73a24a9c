"""Walking through trees: what the parser builds, and every later step looks into."""

from __future__ import annotations

from collections.abc import Callable

#: ``("add", (("num", 2), ("sym", "x")))``: a kind, and then trees, tuples of trees, or plain values.
Tree = tuple


def subtrees(tree: Tree) -> list[Tree]:
    """The tree, every tree inside, and the tuples that hold them."""
    found = [tree]
    for part in found:  # the list grows while it is read
        found += [child for child in part if isinstance(child, tuple) and child]
    return found


def letters(tree: Tree) -> set[str]:
    """The letters of an expression."""
    return {part[1] for part in subtrees(tree) if part[0] == "sym"}


def size(tree: Tree) -> int:
    """How many trees and tuples a tree is made of."""
    return len(subtrees(tree))


def each(tree: Tree, change: Callable[[Tree], Tree]) -> Tree:
    """The tree with ``change`` applied to each of its parts that is a tree or a tuple of trees."""
    return tuple(change(part) if isinstance(part, tuple) and part else part for part in tree)


def replaced(tree: Tree, values: dict[Tree, Tree]) -> Tree:
    """The tree with every key of ``values`` replaced by its value."""
    return values[tree] if tree in values else each(tree, lambda part: replaced(part, values))
