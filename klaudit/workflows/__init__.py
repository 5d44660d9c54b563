"""The verbs, used alike by command line, callbacks and app: where store, audit, alerts, drift and report meet."""
