"""What every HTTP front end shares: authorization, bodies, errors, limits and the request log."""
