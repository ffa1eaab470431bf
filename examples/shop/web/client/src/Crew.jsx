import { Mark } from './art.jsx';

const ORDER = ['web', 'catalogue', 'orders'];

/** The footer: which copies of which services gave what this page shows. */
export function Crew({ servers }) {
  const known = ORDER.filter((name) => servers[name]).map((name) => servers[name]);
  return (
    <footer className="crew">
      <div className="wide">
        <div className="about">
          <Mark />
          <p>
            An example application of <b>Plimsoll</b>: a page in React, services in Node.js, Java 17, Java 8 and Python,
            PostgreSQL and Redis, on one machine.
          </p>
        </div>
        <div>
          <h2>This page came from</h2>
          <ul>
            {known.map(({ service, host, runtime }) => (
              <li key={service}>
                <b>{service}</b> <i>{runtime}</i>
                <code>{host}</code>
              </li>
            ))}
          </ul>
        </div>
      </div>
    </footer>
  );
}
