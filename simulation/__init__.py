"""Deterministic simulation: one seed drives a whole system, its network, its liars and its crashes.

The models for the idea are FoundationDB's simulation and TigerBeetle's VOPR.  Nothing here is a test of one
part.  It is everything at once, on a virtual clock, in one thread: what takes a system weeks to run into
takes a seed a tenth of a second, and happens again exactly when the seed is run again.

::

    make simulate SEEDS=1000       many seeds, in two processes; says what happened and which failed
    make simulate SEED=17          one seed, with its log

What is real: ``merkledb`` on LMDB (in memory, where the system has such a folder), ``server``, ``manager``
and ``syncproto``.  What is not: time, threads (see ``inline``), the network (``stream``, ``network``), and
what takes the power away (``disk``).

::

    writer -> origin's store <- honest servers, servers that lie        origin
                 |
                 v  the same commits, later
              mirrors' stores <- honest servers                         origin
                 |
                 v  a manager each
              replicas' stores <- servers <- further replicas           replica

A seed draws a ``plan``: who is there, how large things are, and how much goes wrong.  Then there are two
times.  In the first the writer commits, replicas are told its roots or believe their peers, and things go
wrong: see ``network`` and ``faults``.  In the second nothing goes wrong any more, but for the liars, which
never stop.

What must hold is in ``safety``, and is looked at after every single write of every store: never is anything
shown, or held, that is not true of the ``model``, a dict for every root that there ever was.  And at the end:
every replica reaches the newest root, within a bounded time.

Two runs of a seed give the same digest of all events (``trace``), in any process: trio's scheduler draws its
order from the seed (``scheduling``), every chance has its own source that is seeded by its purpose, and
nothing reads a clock.

That a simulation finds nothing proves nothing unless it finds what is known to be there.  So the tests plant
a bug of each kind, and see to it that few seeds are needed to catch it.
"""

from simulation.simulation import Outcome, Simulation

__all__ = ["Outcome", "Simulation"]
