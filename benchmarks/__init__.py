from core.openmp import spin_briefly

spin_briefly()  # As app.py does; a benchmark imports torch only after this.
