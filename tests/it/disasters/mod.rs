mod beside;
mod damage;
mod full_disk;
mod killed;
mod repair;
