"""Speech units: features of target speech, centroids, and the unit (nearest centroid) of every 20 ms."""
