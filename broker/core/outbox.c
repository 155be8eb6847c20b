typedef int westlight_empty; /* to be written */
