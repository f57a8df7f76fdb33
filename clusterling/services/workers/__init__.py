"""Workers: writes that would hold the event loop for long are computed in processes of their own.

What the verbs do to an object (decode, default, validate, tell who owns its fields, encode) cannot be cut into slices, and
takes tens of microseconds for each field: a pod of thirty thousand containers most of a second. So a write of much is
given away as it came, bytes and all, to a process that runs the very same handler over a store that is not there: what
the handler reads and commits it asks of the server, by messages, and the server does it on that one cluster's store. The answer
comes back as bytes. Nothing is computed differently, so there is nothing to keep in step.

    pool       the server's side: what is worth giving away, whose turn it is, processes that come and go
    wire       the messages, and how errors are among them
    process    the other side: what a worker runs

Rules of this package
- A worker holds no credential, no store and no socket but the one to its server, and it works for one request at a time. What
  it may read and write is decided by the server, for that request.
- Nothing is pickled. Messages are msgpack of fixed types.
- A worker is expendable. It ends with its server, when nobody needs it, when it takes too much, and when its request is
  given up; then another is started for the next request.

docs/decisions/0022 says why, and what it costs.
"""
