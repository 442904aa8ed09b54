"""Every error that a person can cause or must repair, as one tree.

    MetagdpoError                exit code 70   not raised itself; also the code of an unexpected exception
      NotPromoted                 -   the verdict stands between a candidate and its release
        Blocked                   1   at least one retained skill is proven worse than its margin
        Inconclusive              2   the evidence does not suffice to promote
      ConfigError                 3   params.yaml, a suite, the policy, the asset catalogue or a command is wrong
      DataError                   4   a record, a JSONL line or a pool cannot be used
      ModelError                  5   a model is missing, altered or unreadable
        EndpointError             5   a served model is down or answers garbage
      StoreError                  6   the disk, MLflow or the ledger cannot be written
      EvidenceError               7   two measurements must not be compared, or evidence is missing

A verdict leaves with 0, 1 or 2, and nothing else does: what only went wrong must never look like a decision.

A message says what is wrong, where, and what to do next. `pipelines` and the command line print it without a
traceback and leave with the exit code of its branch.
"""


class MetagdpoError(Exception):
    """Root of the tree; never raised itself."""

    exit_code = 70


class NotPromoted(MetagdpoError):  # noqa: N818  (a verdict, not a mistake)
    """A verdict other than PROMOTE reached the release."""


class Blocked(NotPromoted):
    """The verdict is BLOCK."""

    exit_code = 1


class Inconclusive(NotPromoted):
    """The verdict is INCONCLUSIVE."""

    exit_code = 2


class ConfigError(MetagdpoError):
    """What people write (params.yaml, suites, policy, assets, a command) is invalid; all its problems are listed."""

    exit_code = 3


class DataError(MetagdpoError):
    """A record cannot be read or used; the message names file and line."""

    exit_code = 4


class ModelError(MetagdpoError):
    """A model is missing, has other weights than recorded, or is in a format that is refused."""

    exit_code = 5


class EndpointError(ModelError):
    """A served model did not answer usefully after all retries; what was paid for is kept."""


class StoreError(MetagdpoError):
    """Disk, MLflow store or ledger refused a write; nothing half-written is left."""

    exit_code = 6


class EvidenceError(MetagdpoError):
    """Measurements do not belong together, are incomplete, or are not the ones named; names the field."""

    exit_code = 7
