"""`cifarray jobs`: what can be submitted by name."""

from cifarray.cli import output
from cifarray.cli.options import JsonOption


def jobs(json: JsonOption = False) -> None:
    """List the jobs that come with cifarray.

    \b
    Example:  cifarray jobs
              cifarray submit tune-digits --dry-run
    """
    from cifarray.spec.load import job_names, load_job

    found = [load_job(name) for name in job_names()]
    if json:
        output.print_json([job.model_dump(mode="json") for job in found])
        return
    rows = [
        (job.name, job.kind, job.dataset.name, job.model.name, job.description) for job in found
    ]
    output.print_table(("job", "kind", "dataset", "model", "description"), rows)
