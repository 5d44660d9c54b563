"""Logs steps, waits for each to be stored, and says so on standard output: `python writer.py STORE_URL NAME`."""

import sys

import klaudit


def main() -> None:
    """Log until killed."""
    url, name = sys.argv[1:]
    run = klaudit.start_run(name, kl=klaudit.KLSeries(estimator="k1", unit="nats_per_sequence"), batch_size=16, beta=0.05, store=url)
    step = 0
    while True:
        step += 1
        run.log(step=step, kl=0.01 * step, score=0.5, metrics={"entropy": 2.0, "response_length": 16.0})
        # Reading `failures` waits for what was logged.
        if run.failures:
            raise SystemExit("log failed")
        sys.stdout.write(f"{step}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
