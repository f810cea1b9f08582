"""Exports: smaller and faster files made of a ticket, with checks that they compute the same."""
