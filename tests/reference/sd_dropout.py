"""SD-Dropout beside DDGSD and DML, and its one-sided form; the masks hold 0 or 1 / (1 - beta).

Values of L_SDD alone: Eq. 5 adds ``lambda * T**2`` of it to the other method's loss.
"""

from collections.abc import Callable

from torch import Tensor

Layer = Callable[[Tensor], Tensor]
Masks = tuple[Tensor, Tensor]


def across_views(head: Layer, f_a: Tensor, f_b: Tensor, u: Tensor, v: Tensor, temperature: float) -> Tensor:
    """DDGSD as run: one mask per view, ``KL(p^u(x_a) || p^v(x_b)) + KL(p^v(x_b) || p^u(x_a))``, mean over B."""
    return both_ways(head(f_a * u), head(f_b * v), temperature)


def within_views(
    head: Layer,
    f_a: Tensor,
    f_b: Tensor,
    masks_a: Masks,
    masks_b: Masks,
    temperature: float,
) -> Tensor:
    """DDGSD read literally: two masks on each of the 2B features, mean over 2B."""
    of_a = both_ways(head(f_a * masks_a[0]), head(f_a * masks_a[1]), temperature)
    of_b = both_ways(head(f_b * masks_b[0]), head(f_b * masks_b[1]), temperature)
    return (len(f_a) * of_a + len(f_b) * of_b) / (len(f_a) + len(f_b))


def across_networks(head_1: Layer, f_1: Tensor, f_2: Tensor, u: Tensor, v: Tensor, temperature: float) -> Tensor:
    """DML as run: one mask on each network's features, both classified by the first network's head."""
    return both_ways(head_1(f_1 * u), head_1(f_2 * v), temperature)


def within_networks(
    head_1: Layer,
    head_2: Layer,
    f_1: Tensor,
    f_2: Tensor,
    masks_1: Masks,
    masks_2: Masks,
    temperature: float,
) -> Tensor:
    """DML read literally: each network with two masks of its own and its own head, averaged over the networks."""
    of_1 = both_ways(head_1(f_1 * masks_1[0]), head_1(f_1 * masks_1[1]), temperature)
    of_2 = both_ways(head_2(f_2 * masks_2[0]), head_2(f_2 * masks_2[1]), temperature)
    return (of_1 + of_2) / 2


def one_sided(head: Layer, feature: Tensor, u: Tensor, temperature: float) -> Tensor:
    """The authors' second version: dropped logits teach the clean ones, ``KL(p^u || p)``, no constant side."""
    return one_way(head(feature * u), head(feature), temperature)


def both_ways(z_u: Tensor, z_v: Tensor, temperature: float) -> Tensor:
    """Eq. 3."""
    return one_way(z_u, z_v, temperature) + one_way(z_v, z_u, temperature)


def one_way(z_p: Tensor, z_q: Tensor, temperature: float) -> Tensor:
    """``1/B sum_b sum_i p_bi log(p_bi / q_bi)``."""
    total = z_p.new_zeros(())
    for row_p, row_q in zip(z_p, z_q, strict=True):
        p, q = (row_p / temperature).exp(), (row_q / temperature).exp()
        for i in range(len(row_p)):
            p_i, q_i = p[i] / p.sum(), q[i] / q.sum()
            total = total + p_i * (p_i / q_i).log()
    return total / len(z_p)
