"""An operator's day: the one in `cmd/operator`, written with client-go, two replicas of it, through a day of faults.

The day has 1,440 minutes of a tenth of a second each. In every minute users plant, change and uproot gardens, and meddle with
what the operator keeps; faults come as a seed draws them. What the world holds to is scaled alike: the server keeps five
minutes of history, informers look at everything again after ten hours. Leases are not: they hold for two seconds.
In the evening the faults end, and everything must come to what the users last asked for.
"""
