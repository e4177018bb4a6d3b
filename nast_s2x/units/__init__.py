"""Speech units: features of target speech, centroids, and the nearest centroid of every 20 ms."""
