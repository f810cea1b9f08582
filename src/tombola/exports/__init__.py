"""Ship: smaller and faster artefacts from a ticket, and the proof that they compute the same."""
