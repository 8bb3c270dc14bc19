"""The pure core: aggregates, rules, processors and ports; no I/O and no outside library.

Map (read in this order):

- ``ids``, ``record``, ``journal``, ``refusal``, ``invariant``, ``canonical``: the vocabulary
- ``signed``, ``gate``: what anyone may send, and in which order it is judged
- ``genesis``, ``catalogue``: parameters and prices
- ``commit``, ``chain``, ``merkle``: one record a step, chained and rooted
- ``processor``: inputs, time, deadlines, the unit of work of a step
- ``account`` … ``lease`` …: one module per aggregate (events, states, commands, decide, evolve)
- ``market``, ``metering``, ``settlement``: the three processors
- ``ports``, ``l1``: what the domain asks of the outside
"""
