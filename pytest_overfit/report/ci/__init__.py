"""What a CI service shows of a session: annotations, JUnit properties, the summary of a job."""
