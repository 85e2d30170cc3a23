"""From the triangles of a file to closed bodies that all face outwards.

Files of many makers hold each triangle twice, triangles wound the wrong way, bodies inside out,
bodies that overlap, holes, cavities. In this order: triangles that lie on each other are left out;
loose seams are welded; triangles are turned over shared edges, piece by piece; holes are capped;
each piece is turned outwards; a piece inside another is its cavity if it faces the other way;
what overlaps is united. Everything that was done is a note. What is not closed then raises
ValueError: a guess would be a wrong score in silence.
"""

from __future__ import annotations

from dataclasses import dataclass

import manifold3d
import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import breadth_first_order, connected_components
from scipy.spatial import cKDTree

from ..triangles import (
    capped,
    edges_pair_up,
    manifold_of,
    mesh_mass,
    mesh_of,
    triangle_areas,
    union,
    weld,
)
from .mesh_faces import pairs_at_edges

SEAM_DISTANCES = (1e-6, 1e-5, 1e-4)  # of the longest side: ends of a seam that may be one point
MOST_BESIDE = 8  # points of open edges that near to each on average; more is detail
NO_VOLUME = 1e-10  # volume / area^1.5 of a piece that is no body
INSIDE = 1e-4  # share of a piece that may stick out where it still counts as inside
OVERLAP = 1e-6  # share of the volume that bodies may have in common and count as separate
MOST_CAPPED = 0.5  # area of the caps over holes, beside that of the piece
SURE = 0.3  # share of a piece wound against the rest up to which its side is known


@dataclass(frozen=True, eq=False)
class Body:
    """A closed mesh that faces outwards: points (N, 3), triangles (M, 3), and as a manifold."""

    points: np.ndarray
    triangles: np.ndarray
    manifold: manifold3d.Manifold


@dataclass(eq=False)
class _Piece:
    """A closed surface, turned outwards. outwards: how the file had it, None where unknown."""

    body: Body
    outwards: bool | None
    cavity: bool = False
    inside: _Piece | None = None


def closed_bodies(points: np.ndarray, triangles: np.ndarray) -> tuple[list[Body], list[str]]:
    """Bodies that do not overlap, and notes on what was repaired.

    points: (N, 3). triangles: (M, 3) indices. Raises ValueError, saying what is wrong, where they
    cannot be made closed bodies.
    """
    low, high = points.min(0), points.max(0)
    middle, size = (low + high) / 2, float((high - low).max())
    if not size > 0:
        raise ValueError("the mesh has no size")
    notes: list[str] = []
    points, triangles = weld((points - middle) / size, triangles)
    triangles = _without_doubles(triangles, notes)
    points, triangles = _seams_welded(points, triangles, notes)
    pieces = _pieces(points, triangles, notes)
    _nest(pieces, notes)
    bodies = _united(pieces, notes)
    return [_in_place(body, middle, size) for body in bodies], notes


def _in_place(body: Body, middle: np.ndarray, size: float) -> Body:
    moved = body.manifold.scale([size] * 3).translate(middle)
    return Body(body.points * size + middle, body.triangles, moved)


# ---- triangles -----------------------------------------------------------------------------------


def _without_doubles(triangles: np.ndarray, notes: list[str]) -> np.ndarray:
    """Of triangles with the same corners one is kept; none where two bodies touch in them.

    There the border of the patch has one more triangle of either body, so that the bodies are
    closed, and one, without the patch.
    """
    _, first, which, count = np.unique(
        np.sort(triangles, axis=1),
        axis=0, return_index=True, return_inverse=True, return_counts=True,
    )  # fmt: skip
    if (count == 1).all():
        return triangles
    single = triangles[first]
    edge = _edge_numbers(single)
    of_edge = np.bincount(edge.ravel())
    twice = np.flatnonzero(count > 1)
    patch = _patches(edge[twice])
    border = np.bincount(edge[twice].ravel(), minlength=len(of_edge)) == 1
    odd = (border & (of_edge == 3))[edge[twice]].any(1)
    even = (border & (of_edge == 2))[edge[twice]].any(1)
    shared = np.bincount(patch, odd)[patch] > np.bincount(patch, even)[patch]
    left_out = np.isin(np.arange(len(single)), twice[shared & (count[twice] == 2)])
    notes.append(f"{len(triangles) - (~left_out).sum()} duplicate triangles left out")
    return single[~left_out]


def _edge_numbers(triangles: np.ndarray) -> np.ndarray:
    """(M, 3): the number of each undirected edge, from 0 on."""
    ends = np.sort(triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1).astype(np.int64)
    key = ends[:, 0] * (int(triangles.max(initial=0)) + 1) + ends[:, 1]
    return np.unique(key, return_inverse=True)[1].reshape(-1, 3)


def _patches(edges: np.ndarray) -> np.ndarray:
    """The connected piece of each triangle, from its edges (M, 3)."""
    count = len(edges)
    rows = np.repeat(np.arange(count), 3)
    shape = (count + int(edges.max(initial=0)) + 1,) * 2
    links = coo_matrix((np.ones(3 * count), (rows, count + edges.ravel())), shape)
    return connected_components(links, directed=False)[1][:count]


def _open_edges(triangles: np.ndarray) -> np.ndarray:
    """(K, 2) ends of the edges that belong to one triangle alone."""
    edge = _edge_numbers(triangles).ravel()
    ends = triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    return ends[np.bincount(edge)[edge] == 1]


def _seams_welded(
    points: np.ndarray, triangles: np.ndarray, notes: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Points of open edges that lie next to each other merged, where that closes something."""
    welded = False
    for near in SEAM_DISTANCES:
        loose = np.unique(_open_edges(triangles))
        if not len(loose):
            break
        tree = cKDTree(points[loose])
        if tree.count_neighbors(tree, near) > MOST_BESIDE * len(loose):
            break
        pairs = loose[tree.query_pairs(near, output_type="ndarray")]
        if not len(pairs):
            continue
        links = coo_matrix((np.ones(len(pairs)), pairs.T), [len(points)] * 2)
        group = connected_components(links, directed=False)[1]
        first = np.unique(group, return_index=True)[1]
        merged_points, merged = weld(points[first], group[triangles])
        merged = _without_doubles(merged, [])
        if len(merged) and len(_open_edges(merged)) < len(_open_edges(triangles)):
            points, triangles, welded = merged_points, merged, True
    if welded:
        notes.append("open seams welded")
    return points, triangles


# ---- pieces --------------------------------------------------------------------------------------


def _pieces(points: np.ndarray, triangles: np.ndarray, notes: list[str]) -> list[_Piece]:
    """The closed surfaces of a mesh, each turned outwards."""
    left, right = pairs_at_edges(triangles)
    links = coo_matrix((np.ones(len(left)), (left, right)), [len(triangles)] * 2)
    number, of_piece = connected_components(links, directed=False)
    turned = _turned(triangles, left, right, links)
    area = triangle_areas(points, triangles)
    share = np.bincount(of_piece, area * turned) / np.maximum(np.bincount(of_piece, area), 1e-300)
    triangles = np.where(turned[:, None], triangles[:, ::-1], triangles)
    order = np.argsort(of_piece, kind="stable")
    ends = np.cumsum(np.bincount(of_piece, minlength=number))[:-1]
    pieces, caps, volumeless, against = [], 0, 0, 0
    for index, mine in enumerate(np.split(order, ends)):
        own_points, own = weld(points, triangles[mine])
        size = area[mine].sum()
        if not edges_pair_up(own):
            own_points, own = capped(own_points, own)
            caps += 1
        volume = mesh_mass(own_points, own)[0]
        if abs(volume) <= NO_VOLUME * size**1.5:
            volumeless += 1
            continue
        if (
            not edges_pair_up(own)
            or triangle_areas(own_points, own).sum() > (1 + MOST_CAPPED) * size
        ):
            raise ValueError("the mesh is not closed, and its holes are too large to be capped")
        minority = min(share[index], 1 - share[index])
        if minority > 0:
            against += int(min(turned[mine].sum(), len(mine) - turned[mine].sum()))
        # the side that most of its surface had in the file
        outwards = bool((volume > 0) == (share[index] <= 0.5))
        if volume < 0:
            own = own[:, ::-1]
        solid = manifold_of(own_points, own)
        if solid is None:
            raise ValueError("a piece of the mesh crosses itself or is not closed")
        known = outwards if minority <= SURE else None
        pieces.append(_Piece(Body(own_points, own, solid), known))
    if not pieces:
        raise ValueError("the mesh has no volume")
    if against:
        notes.append(f"winding of {against} triangles turned")
    if caps:
        notes.append("holes capped")
    if volumeless:
        notes.append("pieces without volume left out")
    return pieces


def _turned(
    triangles: np.ndarray, left: np.ndarray, right: np.ndarray, links: coo_matrix
) -> np.ndarray:
    """(M,) whether a triangle is turned so that all of its piece agree with its first one.

    Two that agree walk their common edge in opposite directions. Raises ValueError where a piece
    has one side only.
    """
    against = _same_way(triangles, left, right)
    if not against.any():
        return np.zeros(len(triangles), bool)
    count = len(triangles)
    of_piece = connected_components(links, directed=False)[1]
    starts = np.unique(of_piece, return_index=True)[1]
    # one tree over all pieces: its root is no triangle, and agrees with the first of each piece
    source = np.concatenate([left, right, np.full(len(starts), count)]).astype(np.int64)
    target = np.concatenate([right, left, starts]).astype(np.int64)
    change = np.concatenate([against, against, np.zeros(len(starts), bool)])
    key = source * (count + 1) + target
    order = np.argsort(key, kind="stable")
    key, change = key[order], change[order]
    graph = coo_matrix((np.ones(len(source)), (source, target)), [count + 1] * 2).tocsr()
    visited, before = breadth_first_order(graph, count)
    visited = visited[1:].astype(np.int64)
    parents = before[visited].astype(np.int64)
    steps = change[np.searchsorted(key, parents * (count + 1) + visited)]
    sides = [False] * (count + 1)
    for triangle, parent, step in zip(
        visited.tolist(), parents.tolist(), steps.tolist(), strict=True
    ):
        sides[triangle] = sides[parent] ^ step
    turned = np.array(sides[:count])
    if ((turned[left] ^ turned[right]) != against).any():
        raise ValueError("the mesh has no inside: a surface of it has one side only")
    return turned


def _same_way(triangles: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(E,) whether both triangles walk their common edge in the same direction."""
    count = int(triangles.max(initial=0)) + 1
    after = np.roll(triangles, -1, axis=1)
    ways = triangles.astype(np.int64) * count + after
    return (ways[left][:, :, None] == ways[right][:, None, :]).any((1, 2))


# ---- bodies --------------------------------------------------------------------------------------


def _nest(pieces: list[_Piece], notes: list[str]) -> None:
    """Say of each piece whether it bounds material or a cavity of the piece around it.

    A piece that faces the other way than the one around it is of the other kind; so is one whose
    side, or that of the one around it, is not known. One that faces the same way is a body inside
    a body, which uniting swallows.
    """
    pieces.sort(key=lambda piece: -piece.body.manifold.volume())
    boxes = [(one.body.points.min(0), one.body.points.max(0)) for one in pieces]
    for index, piece in enumerate(pieces):
        low, high = boxes[index]
        for other in reversed(range(index)):  # the smallest that holds it comes first
            if (boxes[other][0] > low + INSIDE).any() or (boxes[other][1] < high - INSIDE).any():
                continue
            volume = piece.body.manifold.volume()
            common = piece.body.manifold ^ pieces[other].body.manifold
            if common.volume() >= (1 - INSIDE) * volume:
                piece.inside = pieces[other]
                break
        around = piece.inside
        if around is None:
            continue
        sides = (piece.outwards, around.outwards)
        piece.cavity = around.cavity
        if None in sides or sides[0] != sides[1]:
            piece.cavity = not around.cavity
        if piece.cavity and piece.outwards is not False:
            notes.append("a piece inside another taken as its cavity")
    wrong = [piece for piece in pieces if piece.outwards is piece.cavity]
    if wrong:
        notes.append("inside-out bodies turned round")


def _united(pieces: list[_Piece], notes: list[str]) -> list[Body]:
    bodies = []
    for piece in pieces:
        if piece.cavity:
            continue
        cavities = [one.body for one in pieces if one.cavity and one.inside is piece]
        bodies.append(_hollowed(piece.body, cavities))
    separate = sum(body.manifold.volume() for body in bodies)
    whole = union([body.manifold for body in bodies])
    if whole.status() != manifold3d.Error.NoError or not whole.volume() > 0:
        raise ValueError("the bodies of the mesh cannot be united")
    if separate - whole.volume() <= OVERLAP * separate:
        return bodies
    notes.append("overlapping bodies united")
    return [_of_manifold(whole)]


def _of_manifold(solid: manifold3d.Manifold) -> Body:
    return Body(*mesh_of(solid), solid)


def _hollowed(body: Body, cavities: list[Body]) -> Body:
    if not cavities:
        return body
    solid = body.manifold - union([cavity.manifold for cavity in cavities])
    apart = body.manifold.volume() - sum(cavity.manifold.volume() for cavity in cavities)
    if abs(solid.volume() - apart) > OVERLAP * body.manifold.volume():
        return _of_manifold(solid)
    points, triangles, count = [body.points], [body.triangles], len(body.points)
    for cavity in cavities:
        points.append(cavity.points)
        triangles.append(cavity.triangles[:, ::-1] + count)
        count += len(cavity.points)
    return Body(np.concatenate(points), np.concatenate(triangles), solid)
