"""What is known of a run as one record on disk: the record, its JSON, its folder, and saved runs to compare with."""
