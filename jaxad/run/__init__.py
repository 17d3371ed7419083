"""What every part of a run needs: config, run folder, environment, progress, errors."""
