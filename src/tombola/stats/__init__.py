"""Statistics and the verdict: is what was found a winning ticket?"""
