"""Do experiments mislead whoever looks at them all the time, and what does it cost that they do not?"""
