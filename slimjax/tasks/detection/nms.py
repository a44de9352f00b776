"""Non-maximum suppression of static shape, exact and without a loop over boxes."""

import jax
import jax.numpy as jnp

from slimjax.tasks.detection.boxes import intersections_over_unions


def kept_by_nms(boxes: jax.Array, scores: jax.Array, threshold: float, groups: jax.Array | None = None) -> jax.Array:
    """Which boxes greedy suppression keeps: from the best score down, those that no kept one overlaps too much.

    The greedy rule has one solution: a box is kept if no kept box before it overlaps it. That is applied to all boxes
    at once until nothing changes. Each time settles at least one more box, in practice whole images take a handful.

    Args:
      boxes: [n, 4] pixels.
      scores: [n]; boxes at minus infinity are not there. Of equal ones the first counts as better.
      threshold: IoU above which the worse box goes.
      groups: [n] integers; boxes of different groups, such as classes, leave each other alone. None is one group.

    Returns:
      [n] booleans.
    """
    order = jnp.argsort(-scores, stable=True)
    ranked, there = boxes[order], scores[order] > -jnp.inf
    overlaps = intersections_over_unions(ranked, ranked) > threshold
    if groups is not None:
        overlaps &= groups[order][:, None] == groups[order][None, :]
    # Rows suppress columns: only those behind them, and only if they are there.
    suppresses = jnp.triu(overlaps, k=1) & there[:, None]

    def step(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        kept, _ = state
        suppressed = (kept.astype(jnp.float32) @ suppresses.astype(jnp.float32)) > 0
        return there & ~suppressed, kept

    kept, _ = jax.lax.while_loop(
        lambda state: jnp.any(state[0] != state[1]), step, step((there, jnp.zeros_like(there)))
    )
    return jnp.zeros_like(there).at[order].set(kept)
