"""fairseq task of the project, its dataset and its generator (imported by fairseq's ``--user-dir``).

Importing this package does not import fairseq; :func:`register` does.
"""


def register() -> None:
    """Register task, models and criterion with fairseq; calling it again does nothing.

    ``fairseq-*`` commands do this through ``--user-dir``. A program that has imported ``nast_s2x`` itself must call
    this function: fairseq imports nothing from a user directory whose package is already imported.
    """
    import nast_s2x.criterions.nast_ctc_nmla
    import nast_s2x.models.nast_s2x
    import nast_s2x.tasks.nast_s2x  # noqa: F401
