"""Where the embedded trainer meets klaudit: the demo, `klaudit train`, and the recording of the sample runs."""
