typedef int westlight_empty;
