"""Open Inference Protocol v2: JSON headers and binary tensors on one side, numpy arrays on the other.

``datatypes`` names the element types and the types of values, ``values`` brings what a user passes to the
exact type that a model wants, ``messages`` holds the requests, responses and metadata, ``binary`` turns
inference messages into bytes and back. ``tensors`` and ``json`` are the two forms of one tensor, ``entries``
adds the sequences, maps and optionals that the protocol lacks, ``limits`` bounds all of it. Nothing here does
I/O, and no error text carries an element of a tensor: names, types, shapes and positions only.
"""
